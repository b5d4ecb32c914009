"""What is shown of a value that is too long to be shown whole."""

from __future__ import annotations

from rlm_mcp.sandbox.types import CellResult, ContextSource


def describe_context(source: ContextSource, prefix_chars: int) -> str:
    """Describe a context: kind, size, lengths, a few names, its first `prefix_chars` characters.

    However many documents there are, the rest stays under 1,500 characters.
    """
    raise NotImplementedError


def cut_middle(text: str, limit: int) -> str:
    """Keep head and tail of `text`, about `limit` characters, and say how many are left out."""
    raise NotImplementedError


def fold_lines(text: str) -> str:
    """Show equal lines that follow each other once, with their number."""
    raise NotImplementedError


def show_cell(result: CellResult, limit: int, *, fold: bool = False) -> str:
    """Show what a cell printed and how it failed; at most `limit` characters of output.

    The error's traceback comes last, its type and message whole.
    """
    raise NotImplementedError


def preview(text: str, limit: int = 120) -> str:
    """Make one short line of `text`, for events."""
    raise NotImplementedError
