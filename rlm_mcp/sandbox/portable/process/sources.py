"""The modules that a guest has: those of the native child that fit, and ours.

A guest compiles and loads them once on a machine; its memory is kept, and later ones start with it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rlm_mcp.sandbox.boot import CHILD_MODULES, module_sources

MODULES = (*CHILD_MODULES, "sandbox.portable.guest.serving", "sandbox.portable.guest.threads")
# Named by modules that do without it here: no file is mapped, the text lies in memory already.
STUBS = {"mmap": "mmap = object", "rlm_mcp.sandbox.child.mapped_str": ""}
# Run in the guest first: compiles sources into code, or loads code, after which `serve` takes over.
BOOT = """
import json, marshal, sys, traceback
from importlib.machinery import ModuleSpec

def handle(kind, data):
    if kind == "compile":
        sources = json.loads(data)
        return marshal.dumps({
            name: source and compile(source, f"<{name}>", "exec", dont_inherit=True)
            for name, source in sources.items()
        })
    try:
        load(marshal.loads(data))
    except BaseException:
        return traceback.format_exc().encode()
    return b""

def load(codes):
    class Sent:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name in codes:
                return ModuleSpec(name, Sent, is_package=codes[name] is None)

        @staticmethod
        def create_module(spec):
            return None

        @staticmethod
        def exec_module(module):
            code = codes[module.__name__]
            if code:
                exec(code, module.__dict__)

    sys.meta_path.insert(0, Sent)
    from rlm_mcp.sandbox.portable.guest.serving import serve
    sys.meta_path.remove(Sent)
    for name in STUBS:
        sys.modules.pop(name, None)
    serve(globals())

STUBS = %r
""" % (tuple(STUBS),)  # noqa: UP031  # braces are code here


def guest_sources(package_root: Path) -> bytes:
    """Read the modules, as JSON of names and sources; a package has no source. Blocks."""
    sources = {**STUBS, **module_sources(package_root, MODULES)}
    return json.dumps(sources).encode()


def digest(sources: bytes) -> str:
    """Name what is made of the sources."""
    return hashlib.sha256(sources + BOOT.encode()).hexdigest()[:16]
