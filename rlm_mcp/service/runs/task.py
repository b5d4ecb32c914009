"""A question that was checked: all that its run needs to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.recording import Recording
from rlm_mcp.sandbox.types import ContextSource
from rlm_mcp.store.runs.records import SavedVariable


@dataclass(frozen=True)
class Task:
    """A question that was checked, and all that its run needs to know.

    `continues` is the run whose REPL it continues; `variables` are what was saved of that, for
    when the REPL is gone. `recording` is what the log holds of a run that is resumed; its REPL was
    opened for `seed_run`, where that is another.
    """

    run_id: str
    question: str
    config: RLMConfig
    source: ContextSource
    root_model: str
    sub_model: str
    answer_schema: Mapping[str, Any] | None = None
    handles: Sequence[str] = ()
    continues: str = ""
    variables: Sequence[SavedVariable] = ()
    recording: Recording = field(default_factory=Recording)
    seed_run: str = ""

    @property
    def seed(self) -> int:
        """What `random` starts from: the same whenever the run's cells are run."""
        return int((self.seed_run or self.run_id)[4:12], 16)
