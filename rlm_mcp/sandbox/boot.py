"""How the host starts a child: the interpreter's code, and the options the child reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlm_mcp.sandbox.layout import Layout
from rlm_mcp.sandbox.types import ReplOptions

# Skips the package's own `__init__`: a REPL needs only the sandbox.
BOOT = """
import sys, types
package = types.ModuleType("rlm_mcp")
package.__path__ = [sys.argv[1]]
sys.modules["rlm_mcp"] = package
from rlm_mcp.sandbox.{module} import main
main()
"""
# What a REPL without this package's files is sent, in a container and in WebAssembly.
CHILD_MODULES = (
    "errors",
    "sandbox.child.answers",
    "sandbox.child.calls",
    "sandbox.child.citing",
    "sandbox.child.documents",
    "sandbox.child.execute",
    "sandbox.child.items",
    "sandbox.child.lasting",
    "sandbox.child.link",
    "sandbox.child.namespace",
    "sandbox.child.output",
    "sandbox.child.saved_variables",
    "sandbox.child.search",
    "sandbox.child.values",
    "sandbox.child.worker",
    "sandbox.child.written.awaits",
    "sandbox.child.written.imports",
    "sandbox.child.written.pools",
    "sandbox.child.written.prompts",
    "sandbox.layout",
    "sandbox.types",
    "sandbox.wire",
)


@dataclass(frozen=True)
class Start:
    """What a child gets when it starts: descriptors, layout of the text, options."""

    socket: int
    text: int
    layout: Layout
    options: ReplOptions

    def to_json(self) -> str:
        """Encode for the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Start:
        """Decode what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        layout, options = Layout(**values["layout"]), ReplOptions(**values["options"])
        return cls(values["socket"], values["text"], layout, options)


def module_sources(package_root: Path, names: Iterable[str]) -> dict[str, str | None]:
    """Read modules of this package by name, and name the packages above them. Blocking.

    A package has no source.
    """
    sources: dict[str, str | None] = {}
    for name in names:
        path = package_root / Path(*name.split(".")).with_suffix(".py")
        full = f"rlm_mcp.{name}"
        sources[full] = path.read_text("utf-8")
        while "." in full:
            full = full.rpartition(".")[0]
            sources[full] = None
    return sources
