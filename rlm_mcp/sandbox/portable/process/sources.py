"""The modules that a guest is sent when it starts: those of the native child that fit, and ours."""

from __future__ import annotations

import json
from pathlib import Path

PACKAGE = "rlm_mcp"
MODULES = (
    "errors",
    "sandbox.child.calls",
    "sandbox.child.documents",
    "sandbox.child.execute",
    "sandbox.child.link",
    "sandbox.child.namespace",
    "sandbox.child.output",
    "sandbox.child.saved_variables",
    "sandbox.child.search",
    "sandbox.child.values",
    "sandbox.child.worker",
    "sandbox.layout",
    "sandbox.portable.guest.serving",
    "sandbox.portable.guest.threads",
    "sandbox.types",
    "sandbox.wire",
)
# Named by modules that do without it here: no file is mapped, the text lies in memory already.
STUBS = {"mmap": "mmap = object", "rlm_mcp.sandbox.child.mapped_str": ""}
# Run in the guest first; `handle` then gets the sources, and is replaced by `serve`.
BOOT = """
import json, sys, traceback
from importlib.machinery import ModuleSpec

def handle(kind, data):
    try:
        load(data)
    except BaseException:
        return traceback.format_exc().encode()
    return b""

def load(data):
    sources = json.loads(data)

    class Sent:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name in sources:
                return ModuleSpec(name, Sent, is_package=sources[name] is None)

        @staticmethod
        def create_module(spec):
            return None

        @staticmethod
        def exec_module(module):
            name = module.__name__
            source = sources[name]
            if source is not None:
                exec(compile(source, f"<{name}>", "exec", dont_inherit=True), module.__dict__)

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
    sources: dict[str, str | None] = dict(STUBS)
    for name in MODULES:
        path = package_root / Path(*name.split(".")).with_suffix(".py")
        full = f"{PACKAGE}.{name}"
        sources[full] = path.read_text("utf-8")
        while "." in full:
            full = full.rpartition(".")[0]
            sources[full] = None
    return json.dumps(sources).encode()
