"""A component of the component model becomes one core module.

componentize-py makes a component: core modules, and a list of how their imports and exports are
joined. wasmtime's component API shows no memory, so the modules are joined here: the list is read,
every import is renamed to say which instance provides it, and binaryen's `wasm-merge` makes one
module. What the component model needs alone (its shims, and the adapter for the older WASI) is
left out, and what the system would provide stays an import, named `host` and by its function.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

FEATURES = ("--all-features", "--disable-compact-imports")
FUNC, TABLE, MEMORY, GLOBAL, TAG, TYPE, MODULE, INSTANCE = 0, 1, 2, 3, 4, 0x10, 0x11, 0x12
HELPER_BYTES = 20_000  # shims and adapters are smaller, the modules of a Python larger
Place = tuple[str, str]  # module and name of an import


class Reader:
    """Reads the binary format."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self._data, self.place = data, place

    def byte(self) -> int:
        """Read a byte."""
        self.place += 1
        return self._data[self.place - 1]

    def number(self) -> int:
        """Read a LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return value

    def name(self) -> str:
        """Read a name."""
        length = self.number()
        self.place += length
        return self._data[self.place - length : self.place].decode()

    def limits(self) -> None:
        """Skip the limits of a memory or a table."""
        has_most = self.byte() & 1
        self.number()
        if has_most:
            self.number()

    def sections(self) -> Iterator[tuple[int, int, int]]:
        """Yield the kind, start and end of each section."""
        while self.place < len(self._data):
            kind, length = self.byte(), self.number()
            end = self.place + length
            yield kind, self.place, end
            self.place = end


def number(value: int) -> bytes:
    """Write a LEB128 number."""
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 127
        out.append(byte | 128 if value else byte)
        if not value:
            return bytes(out)


def _named(text: str) -> bytes:
    data = text.encode()
    return number(len(data)) + data


@dataclass(frozen=True)
class _Export:
    """Something that an instance exports under a name."""

    instance: int
    name: str


@dataclass(frozen=True)
class _Host:
    """Something that the outside provides."""

    name: str


_Item = _Export | _Host | int


@dataclass(frozen=True)
class _Instance:
    """A module with the instances that its imports name, or a bag of named things."""

    module: int | None = None
    given: dict[str, int] = field(default_factory=dict[str, int])
    bag: dict[str, _Item] = field(default_factory=dict[str, _Item])


class Component:
    """The core modules and core instances of a component."""

    def __init__(self, data: bytes) -> None:
        self.modules: list[bytes] = []
        self.instances: list[_Instance] = []
        self._functions: list[str] = []  # of the component, by what they are called outside
        self._outer: list[str] = []  # instances of the component, likewise
        self._core: dict[int, list[_Item]] = {
            sort: [] for sort in (0, 1, 2, 3, 4, 0x10, 0x11, 0x12)
        }
        self._reader = Reader(data, 8)
        readers = {
            2: self._read_instance,
            6: self._read_alias,
            8: self._read_canon,
            10: self._read_import,
        }
        for kind, start, end in self._reader.sections():
            if kind == 1:
                self.modules.append(data[start:end])
            elif kind in readers:
                for _ in range(self._reader.number()):
                    readers[kind]()

    def _read_instance(self) -> None:
        reader = self._reader
        if reader.byte() == 0:
            module, given = reader.number(), dict[str, int]()
            for _ in range(reader.number()):
                name = reader.name()
                reader.byte()
                given[name] = reader.number()
            self.instances.append(_Instance(module, given))
            return
        bag: dict[str, _Item] = {}
        for _ in range(reader.number()):
            name, sort = reader.name(), reader.byte()
            bag[name] = self._core[sort][reader.number()]
        self.instances.append(_Instance(bag=bag))

    def _read_alias(self) -> None:
        reader = self._reader
        sort = reader.byte()
        core_sort = reader.byte() if sort == 0 else None
        target = reader.byte()
        if target == 0:
            name = f"{self._outer[reader.number()]}:{reader.name()}"
            if sort == 1:
                self._functions.append(name)
            elif sort == 5:
                self._outer.append(name)
        elif target == 1 and core_sort is not None:
            instance = reader.number()
            self._core[core_sort].append(_Export(instance, reader.name()))
        else:
            reader.number(), reader.number()

    def _read_canon(self) -> None:
        reader = self._reader
        canon = reader.byte()
        if canon == 0:
            reader.byte(), reader.number(), self._skip_options(), reader.number()
            self._functions.append("lifted")
        elif canon == 1:
            reader.byte()
            self._core[FUNC].append(_Host(_without_version(self._functions[reader.number()])))
            self._skip_options()
        elif canon in {2, 3, 4}:
            reader.number()
            self._core[FUNC].append(_Host("resource-drop"))
        else:
            raise SystemExit(f"canon {canon:#x}: a newer component model than this reads")

    def _skip_options(self) -> None:
        for _ in range(self._reader.number()):
            if self._reader.byte() in {3, 4, 5, 7}:
                self._reader.number()

    def _read_import(self) -> None:
        reader = self._reader
        reader.byte()
        name, sort = reader.name(), reader.byte()
        if sort == 0:
            reader.byte(), reader.number()
        elif sort == 1:
            reader.number()
            self._functions.append(name)
        elif sort == 3:
            if reader.byte() == 0:
                reader.number()
        else:
            reader.number()
            self._outer.append(name)


def _without_version(name: str) -> str:
    """`wasi:io/poll@0.2.9:poll` without `@0.2.9`: which one it is changes nothing here."""
    front, at, rest = name.partition("@")
    return front + rest[rest.index(":") :] if at else name


class _Joins:
    """Says who provides an import."""

    def __init__(self, component: Component) -> None:
        self._instances = component.instances
        small = {at: data for at, data in enumerate(component.modules) if len(data) < HELPER_BYTES}
        self._shims = {at for at, data in small.items() if b"$imports" in data}
        self._adapters = {
            at
            for at, data in small.items()
            if b"reset_adapter_state" in data and b"cabi_import_realloc" in data
        }
        self._fixed = next(
            instance.bag for instance in reversed(self._instances) if "$imports" in instance.bag
        )

    def is_kept(self, instance: _Instance) -> bool:
        """Tell whether an instance is a part of the merged module."""
        is_helper = instance.module in self._adapters | self._shims
        return instance.module is not None and not is_helper and set(instance.given) != {""}

    def provider(self, given: int, name: str) -> Place:
        """Return who provides `name` of the instance `given`."""
        item: _Item = _Export(given, name)
        while not isinstance(item, _Host):
            if isinstance(item, int):
                raise SystemExit(f"{name!r}: an item that this does not read")
            found = self._instances[item.instance]
            if found.module is None:
                item = found.bag[item.name]
            elif found.module in self._shims:
                item = self._fixed[item.name]
            elif found.module in self._adapters:
                return "host", f"adapter:{item.name}"
            else:
                return f"i{item.instance}", item.name
        return "host", item.name


def merge(data: bytes, folder: Path, wasm_merge: str, exports: Set[str]) -> bytes:
    """Make one module of a component; only the named exports stay."""
    component = Component(data)
    joins = _Joins(component)
    arguments: list[str] = []
    for place, instance in enumerate(component.instances):
        if instance.module is None or not joins.is_kept(instance):
            continue
        given = instance.given
        module = renamed(
            component.modules[instance.module],
            lambda module, name, given=given: joins.provider(given[module], name),
        )
        path = folder / f"i{place}.wasm"
        path.write_bytes(module)
        arguments += [str(path), f"i{place}"]
    merged = folder / "merged.wasm"
    command = [wasm_merge, *arguments, "-o", str(merged), "--rename-export-conflicts", *FEATURES]
    subprocess.run(command, check=True)  # noqa: S603  # the pinned tool and our own files
    return with_exports(merged.read_bytes(), exports)


def renamed(module: bytes, provider: Callable[[str, str], Place]) -> bytes:
    """Rename the imports of a module."""

    def body(reader: Reader) -> bytes:
        count, out = reader.number(), bytearray()
        for _ in range(count):
            of, name = provider(reader.name(), reader.name())
            begin = reader.place
            _skip_import(reader)
            out += _named(of) + _named(name) + module[begin : reader.place]
        return number(count) + bytes(out)

    return _with_section(module, 2, body)


def _skip_import(reader: Reader) -> None:
    sort = reader.byte()
    if sort == FUNC:
        reader.number()
    elif sort == TABLE:
        reader.byte(), reader.limits()
    elif sort == MEMORY:
        reader.limits()
    else:
        reader.byte(), reader.byte()


def with_exports(module: bytes, exports: Set[str]) -> bytes:
    """Keep only the named exports of a module."""

    def body(reader: Reader) -> bytes:
        kept: list[bytes] = []
        for _ in range(reader.number()):
            begin, name = reader.place, reader.name()
            reader.byte(), reader.number()
            if name in exports:
                kept.append(module[begin : reader.place])
        return number(len(kept)) + b"".join(kept)

    return _with_section(module, 7, body)


def _with_section(module: bytes, wanted: int, body: Callable[[Reader], bytes]) -> bytes:
    out = bytearray(module[:8])
    for kind, start, end in Reader(module, 8).sections():
        new = body(Reader(module, start)) if kind == wanted else module[start:end]
        out += bytes((kind,)) + number(len(new)) + new
    return bytes(out)
