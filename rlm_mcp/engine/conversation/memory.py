"""What a run remembers of its turns, so that one that goes in circles is noticed and helped."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlm_mcp.engine.prompts.cell_output import without_note
from rlm_mcp.sandbox.types import CellResult

LATEST_PRINTED = 2
RESTART_WARMTH = 0.3
MAX_WARMTH = 1.0


@dataclass
class Recall:
    """Replies, what cells printed without failing, and how often the conversation began again."""

    restarts: int = 0
    _replies: list[str] = field(default_factory=list[str])
    _printed: list[str] = field(default_factory=list[str])

    def note_reply(self, text: str, *, any_earlier: bool) -> bool:
        """Remember a reply; gives whether it is the last one again, or any earlier one."""
        known = self._replies if any_earlier else self._replies[-1:]
        is_repeated = text in known
        self._replies.append(text)
        return is_repeated

    def note_cell(self, result: CellResult, shown: str) -> None:
        """Remember what a cell printed that did not fail, as it was shown."""
        if result.output.strip() and result.error is None:
            self._printed.append(without_note(shown))

    @property
    def printed(self) -> str:
        """What the latest cells printed."""
        return "\n".join(dict.fromkeys(self._printed[-LATEST_PRINTED:]))

    def temperature(self, wanted: float | None) -> float | None:
        """Give the temperature to ask for: warmer after each restart, for something new."""
        if wanted is None or not self.restarts:
            return wanted
        return max(wanted, min(MAX_WARMTH, wanted + RESTART_WARMTH * self.restarts))
