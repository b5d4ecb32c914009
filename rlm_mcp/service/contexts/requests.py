"""What callers ask of texts. Nothing else is loaded with it, so that tools can name it early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NewText:
    """A text to be added, from one source; empty means not given.

    `include`, `exclude` and `honours_ignore_files` narrow a directory or glob.
    """

    text: str = ""
    path: str = ""
    documents: tuple[str, ...] = ()
    name: str = ""
    upload_id: str = ""
    is_final: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    honours_ignore_files: bool = True


@dataclass(frozen=True)
class SearchQuery:
    """What to look for; `limit` is in matches.

    By words, `literal` and `ignore_case` mean nothing.
    """

    pattern: str
    literal: bool = False
    ignore_case: bool = False
    context_lines: int = 0
    limit: int = 50
    mode: Literal["pattern", "words"] = "pattern"
