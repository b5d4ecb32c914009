"""How the host starts a child: the interpreter's code, and the options the child reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
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
