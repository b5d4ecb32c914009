"""What a root model is told before it sees a question."""

from __future__ import annotations

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.messages import Message


def system_prompt(
    config: RLMConfig, *, recursion: bool = False, has_sub_model: bool = False
) -> str:
    """Write the system message; equal arguments give equal bytes, for prompt caches.

    Args:
        config: its variant, limits and whether there are sub-calls.
        recursion: whether `rlm_query` exists in this REPL.
        has_sub_model: whether sub-calls go to a model other than the root's.
    """
    raise NotImplementedError


def worked_example(config: RLMConfig) -> tuple[Message, ...]:
    """Give the turns shown between system message and question; ends with the assistant's."""
    raise NotImplementedError
