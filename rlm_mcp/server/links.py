"""The URIs of texts and runs, and links to them in results."""

from __future__ import annotations

from mcp_types import ResourceLink

from rlm_mcp.text import cut

JSON = "application/json"
TEXT = "text/plain"
_MAX_TITLE_CHARS = 100


def text_uri(handle: str) -> str:
    """The URI of a stored text."""
    return f"rlm://contexts/{handle}"


def run_uri(run_id: str) -> str:
    """The URI of a run."""
    return f"rlm://runs/{run_id}"


def one_line(text: str) -> str:
    """A name or question as a title: one line, not too long."""
    return cut(" ".join(text.split()), _MAX_TITLE_CHARS)


def text_link(handle: str, name: str) -> ResourceLink:
    """A link to a stored text."""
    return ResourceLink(uri=text_uri(handle), name=handle, title=one_line(name), mime_type=TEXT)


def run_link(run_id: str, question: str) -> ResourceLink:
    """A link to a run."""
    return ResourceLink(
        uri=run_uri(run_id), name=run_id, title=one_line(question) or None, mime_type=JSON
    )
