"""What the process around an instance is told when it starts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

ORDER_BYTES = 4  # of the number of an order, where it is interrupted


@dataclass(frozen=True)
class Boot:
    """What the process is told when it starts.

    `socket` is a descriptor; None on Windows, where the socket is shared over standard input.
    `library` is the folder that holds wasmtime, `compiled` the module's code for this machine,
    `image` its memory with our modules loaded, `facts` what the module's build found out.
    """

    socket: int | None
    library: str
    compiled: str
    image: str
    facts: dict[str, Any]

    def to_json(self) -> str:
        """Write it down for the command line."""
        return json.dumps(asdict(self))
