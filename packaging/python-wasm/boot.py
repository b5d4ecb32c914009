"""What is in the module's memory when it starts: CPython with its standard library, all imported.

componentize-py runs this once, when the module is built, and keeps the memory. Nothing in here
belongs to rlm-mcp's own version: its code is sent as source with `enter("run", ...)` when a REPL
starts. It puts a function named `handle` into `namespace`, which gets everything sent later.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import io
import marshal
import os
import sys
import zlib
import zoneinfo
import zoneinfo._common
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

import wit_world

LIBRARY = "/python"  # where componentize-py shows the standard library while it builds
ZONES = "/0/zones"  # put beside this file, which is shown as /0/boot.py
IMPORTED = """
abc argparse array ast asyncio base64 binascii bisect calendar cmath codecs collections
collections.abc concurrent.futures concurrent.futures.thread contextlib contextvars copy csv
dataclasses datetime decimal difflib email enum fnmatch fractions functools gc hashlib heapq hmac
html html.entities html.parser importlib inspect io ipaddress itertools json json.decoder
json.encoder keyword linecache locale logging marshal math numbers operator os pickle pprint queue
random re reprlib secrets shlex signal sqlite3 statistics string struct sys tempfile textwrap
threading time timeit traceback types typing unicodedata urllib.parse uuid warnings weakref
xml.etree.ElementTree zlib zoneinfo _strptime encodings.utf_8 encodings.latin_1 encodings.ascii
encodings.cp1252 encodings.utf_16 encodings.utf_16_le encodings.utf_32 encodings.utf_32_le
encodings.idna
""".split()
LEFT_OUT = (
    "test", "idlelib", "tkinter", "turtledemo", "turtle", "lib2to3", "ensurepip", "pydoc_data",
    "__phello__", "venv", "_pyrepl", "__pycache__", "site-packages", "config-", "pip",
    "antigravity", "this",
)  # fmt: skip

namespace: dict[str, Any] = {"__name__": "rlm_boot"}


class Library(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads modules that are kept as compressed code: a REPL has no file system."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bool, bytes]] = {}

    def gather(self, folder: str, prefix: str = "") -> None:
        """Keep every module below a folder."""
        for name in sorted(os.listdir(folder)):  # noqa: PTH208  # pathlib is not needed otherwise
            path = f"{folder}/{name}"
            if name.startswith(LEFT_OUT):
                continue
            if name.endswith(".py"):
                self._keep(path, prefix, name.removesuffix(".py"))
            elif "." not in name and os.path.exists(f"{path}/__init__.py"):  # noqa: PTH110  # likewise
                self.gather(path, f"{prefix}{name}.")

    def _keep(self, path: str, prefix: str, stem: str) -> None:
        is_package = stem == "__init__"
        name = prefix.removesuffix(".") if is_package else prefix + stem
        if not name:
            return
        with open(path, "rb") as file:  # noqa: PTH123  # likewise
            source = file.read()
        try:
            code = compile(source, f"<{name}>", "exec", dont_inherit=True, optimize=2)
        except (SyntaxError, ValueError):  # some files of the library are templates
            return
        self._kept[name] = (is_package, zlib.compress(marshal.dumps(code), 9))

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Find a module that is kept."""
        found = self._kept.get(fullname)
        if found is None:
            return None
        origin = f"<{fullname}>"
        return importlib.util.spec_from_loader(fullname, self, origin=origin, is_package=found[0])

    def is_package(self, fullname: str) -> bool:
        """Tell whether a kept module is a package."""
        return self._kept[fullname][0]

    def get_source(self, fullname: str) -> str | None:
        """Return None: the sources are left out."""
        return None

    def get_code(self, fullname: str) -> CodeType:
        """Return a module's code."""
        return marshal.loads(zlib.decompress(self._kept[fullname][1]))  # noqa: S302  # ours

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code in it."""
        exec(self.get_code(module.__name__), module.__dict__)  # noqa: S102  # that is what loaders do


class WitWorld(wit_world.WitWorld):
    """What the host can call."""

    def enter(self, kind: str, data: bytes) -> bytes:
        """Run source, or hand over to what an earlier source defined."""
        if kind == "run":
            exec(compile(data, "<boot>", "exec", dont_inherit=True), namespace)  # noqa: S102  # the host's
            return b""
        return namespace["handle"](kind, data)


def keep_time_zones() -> None:
    """Read the time zones into memory, and make `zoneinfo` take them from there."""
    zones: dict[str, bytes] = {}
    for folder, _, names in os.walk(ZONES):
        for name in names:
            path = f"{folder}/{name}"
            with open(path, "rb") as file:  # noqa: PTH123  # as above
                data = file.read()
            if data.startswith(b"TZif"):
                zones[path.removeprefix(f"{ZONES}/")] = data

    def load(key: str) -> io.BytesIO:
        if key not in zones:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")
        return io.BytesIO(zones[key])

    zoneinfo.reset_tzpath(to=())
    vars(zoneinfo._common)["load_tzdata"] = load  # nothing else is asked for a zone
    vars(zoneinfo)["available_timezones"] = lambda: set(zones)


def _build() -> None:
    library = Library()
    library.gather(LIBRARY)
    keep_time_zones()
    for name in IMPORTED:
        importlib.import_module(name)
    sys.meta_path.insert(0, library)
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.stdin = io.StringIO()
    sys.stdout = sys.stderr = io.StringIO()
    namespace.update(send=wit_world.send, receive=wit_world.receive)


_build()
