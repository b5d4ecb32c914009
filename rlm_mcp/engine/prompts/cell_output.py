"""How the root model is shown what came of a cell."""

from __future__ import annotations

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.parsing.evidence import assigns_context
from rlm_mcp.engine.prompts import context_replaced, is_small
from rlm_mcp.engine.prompts.display import show_cell
from rlm_mcp.sandbox.types import CellResult


def show_result(code: str, result: CellResult, config: RLMConfig) -> str:
    """Show output and error, cut, and what is to be said of the code."""
    shown = show_cell(result, config.metadata_prefix_chars, fold=is_small(config))
    return f"{shown}\n{context_replaced()}" if assigns_context(code) else shown


def without_note(shown: str) -> str:
    """Leave what was printed."""
    return shown.removesuffix(f"\n{context_replaced()}")
