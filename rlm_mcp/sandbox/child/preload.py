"""The standard library in memory, so that a REPL can import without access to files."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import io
import marshal
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import CodeType, ModuleType

# What model code often imports; loaded once, shared by every REPL.
COMMON = (
    "abc argparse array ast asyncio base64 binascii bisect bz2 calendar codecs collections"
    " concurrent.futures contextlib copy csv ctypes dataclasses datetime decimal difflib email"
    " enum fnmatch fractions functools glob graphlib gzip hashlib heapq hmac html html.parser"
    " inspect io ipaddress itertools json keyword locale logging lzma math numbers operator"
    " pathlib pickle platform pprint queue random re reprlib secrets shlex shutil socket sqlite3"
    " statistics string struct subprocess tempfile textwrap threading time timeit tokenize"
    " traceback types typing unicodedata unittest urllib.parse uuid warnings weakref"
    " xml.etree.ElementTree zipfile zlib zoneinfo"
)
_LEFT_OUT = {
    "ensurepip",
    "idlelib",
    "lib-dynload",
    "lib2to3",
    "msilib",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "venv",
}
_EXTENSIONS_LEFT_OUT = ("_test", "_tkinter", "_curses", "_xxtest", "xxlimited", "xxsubtype", "_dbm")
_PYC_HEADER_BYTES = 16


@dataclass(frozen=True)
class _Source:
    data: bytes
    is_bytecode: bool
    is_package: bool
    path: str


class MemoryLibrary(MetaPathFinder, Loader):
    """Imports modules from bytes that were read beforehand."""

    def __init__(self, modules: dict[str, _Source]) -> None:
        self._modules = modules

    def __len__(self) -> int:
        return len(self._modules)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module by its full name, whatever the path."""
        del path, target
        source = self._modules.get(fullname)
        if source is None:
            return None
        return importlib.machinery.ModuleSpec(
            fullname, self, origin=source.path, is_package=source.is_package
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return None: the import system creates the module."""
        del spec

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        exec(self.code_of(module.__name__), module.__dict__)  # noqa: S102  # what importing is

    def code_of(self, name: str) -> CodeType:
        """Return a module's code, compiled beforehand or now."""
        source = self._modules[name]
        if source.is_bytecode:
            return marshal.loads(memoryview(source.data)[_PYC_HEADER_BYTES:])  # noqa: S302  # the interpreter's own cache
        return compile(source.data, source.path, "exec", dont_inherit=True)


def import_common() -> None:
    """Import what model code uses most, and all extension modules, which exist only as files."""
    for name in (*COMMON.split(), *_extensions()):
        # The interpreter may have been built without a module; importing it then fails as usual.
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module(name)


def keep_library() -> MemoryLibrary:
    """Read the standard library into memory and make it the first importer."""
    root = Path(sysconfig.get_path("stdlib"))
    library = MemoryLibrary(dict(_modules(root, "")))
    sys.meta_path.insert(0, library)
    sys.path.clear()
    sys.path_importer_cache.clear()
    return library


def keep_time_zones() -> int:
    """Read the time zones into memory for `zoneinfo`; return how many.

    It replaces a private function, `zoneinfo._common.load_tzdata`."""
    from zoneinfo import TZPATH, _common, available_timezones, reset_tzpath  # noqa: PLC0415  # imports much, needed here alone

    zones: dict[str, bytes] = {}
    for name in available_timezones():
        for folder in TZPATH:
            with contextlib.suppress(OSError):
                zones[name] = Path(folder, name).read_bytes()
                break

    def load(key: str) -> io.BytesIO:
        if key not in zones:
            from zoneinfo import ZoneInfoNotFoundError  # noqa: PLC0415  # likewise

            raise ZoneInfoNotFoundError(f"no time zone found with key {key}")
        return io.BytesIO(zones[key])

    reset_tzpath(to=())
    _common.load_tzdata = load
    return len(zones)


def _modules(folder: Path, prefix: str) -> Iterator[tuple[str, _Source]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = entry.name
        if name in _LEFT_OUT or name.startswith((".", "__pycache__", "config-")):
            continue
        path = Path(entry.path)
        if entry.is_dir() and (path / "__init__.py").exists():
            yield prefix + name, _read(path / "__init__.py", is_package=True)
            yield from _modules(path, f"{prefix}{name}.")
        elif name.endswith(".py") and name != "__init__.py":
            yield prefix + path.stem, _read(path, is_package=False)


def _read(path: Path, *, is_package: bool) -> _Source:
    cached = Path(importlib.util.cache_from_source(path))
    with contextlib.suppress(OSError):
        data = cached.read_bytes()
        if data[:4] == importlib.util.MAGIC_NUMBER:
            return _Source(data, is_bytecode=True, is_package=is_package, path=str(path))
    return _Source(path.read_bytes(), is_bytecode=False, is_package=is_package, path=str(path))


def _extensions() -> Iterator[str]:
    folder = Path(sysconfig.get_path("platstdlib"), "lib-dynload")
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.so")):
        name = path.name.partition(".")[0]
        if not name.startswith(_EXTENSIONS_LEFT_OUT):
            yield name
