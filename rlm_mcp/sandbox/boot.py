"""How the host starts a child: the code that the interpreter is given, and the options it reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from rlm_mcp.sandbox.layout import Layout
from rlm_mcp.sandbox.types import ReplOptions

# The package's own `__init__` is left out: a REPL needs the sandbox alone.
BOOT = """
import sys, types
package = types.ModuleType("rlm_mcp")
package.__path__ = [sys.argv[1]]
sys.modules["rlm_mcp"] = package
from rlm_mcp.sandbox.child.{module} import main
main()
"""


@dataclass(frozen=True)
class Start:
    """What a child is told when it begins: descriptors, layout of the text, options."""

    socket: int
    text: int
    layout: Layout
    options: ReplOptions

    def to_json(self) -> str:
        """Write it down for the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Start:
        """Read what `to_json` wrote."""
        said: dict[str, Any] = json.loads(text)
        layout, options = Layout(**said["layout"]), ReplOptions(**said["options"])
        return cls(said["socket"], said["text"], layout, options)
