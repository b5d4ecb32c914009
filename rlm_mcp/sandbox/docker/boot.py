"""What a container gets first: code for Python's command line, and the modules that it loads."""

from __future__ import annotations

from rlm_mcp.sandbox.boot import CHILD_MODULES

# Told to Python on its command line: reads the modules, then calls `main`.
BOOT = """
import json, os, sys
from importlib.machinery import ModuleSpec

def read(size):
    data = bytearray()
    while len(data) < size:
        more = os.read(0, min(size - len(data), 1 << 20))
        if not more:
            os._exit(0)
        data += more
    return bytes(data)

def read_sized():
    return read(int.from_bytes(read(4), "big"))

class Sent:
    sources = json.loads(read_sized())

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in cls.sources:
            return ModuleSpec(name, cls, is_package=cls.sources[name] is None)

    @staticmethod
    def create_module(spec):
        return None

    @classmethod
    def exec_module(cls, module):
        name = module.__name__
        exec(compile(cls.sources[name] or "", f"<{name}>", "exec"), module.__dict__)

sys.meta_path.insert(0, Sent)
from rlm_mcp.sandbox.docker import inside
sys.meta_path.remove(Sent)
inside.main(read, read_sized())
"""
MODULES = (
    *CHILD_MODULES,
    "sandbox.child.mapped_str",
    "sandbox.docker.inside",
    "sandbox.walls.limits",
)
