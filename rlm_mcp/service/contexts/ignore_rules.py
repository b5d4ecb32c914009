"""Patterns as a `.gitignore` has them, and the files that hold them.

A pattern takes time in proportion to itself and to the path, whatever it is: a repository may be
made to hold up whoever reads it, and the libraries' expressions try every way to split a name among
the stars of `*a*a*a*a*b`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlm_mcp.service.contexts.paths import composed

IGNORE_FILES = (".gitignore", ".ignore")
MAX_IGNORE_BYTES = 1 << 20
MAX_PATTERN_CHARS = 4096  # no path is longer
GIT = ".git"  # of a worktree or a submodule, it is a file
_EXCLUDE = f"{GIT}/info/exclude"  # what only this copy of a repository ignores
_ANY_FOLDERS = "**"
_CLASSES = {
    "alnum": "A-Za-z0-9",
    "alpha": "A-Za-z",
    "blank": r"\ \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "A-Fa-f0-9",
}
_PART = re.compile(r"\\(?P<escaped>.)|(?P<stars>\*+)|(?P<any>\?)|(?P<set>\[)|(?P<plain>.)", re.S)
_IN_SET = re.compile(
    r"\[:(?P<named>[^\]:]*):\]|(?:\\(?P<escaped>.)|(?P<plain>[^\\]))"
    r"(?:-(?:\\(?P<last_escaped>.)|(?P<last>[^\]\\])))?",
    re.S,
)


@dataclass(frozen=True)
class _Rule:
    """One pattern: the expressions of its names, `**` for any number of folders."""

    is_positive: bool
    is_for_folders: bool
    is_anchored: bool
    names: tuple[str | re.Pattern[str], ...]

    def fits(self, names: Sequence[str], *, is_folder: bool) -> bool:
        if self.is_for_folders and not is_folder:
            return False
        return _fit(self.names, names) if self.is_anchored else _fits(self.names[0], names[-1])


class IgnoreRules:
    """Patterns in their order, of which the last one that fits decides.

    Places are paths with slashes, relative to where the patterns stand; a folder's ends with one.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        made = [_rule(composed(pattern)) for pattern in patterns]
        self._rules = tuple(rule for rule in reversed(made) if rule is not None)

    def says(self, place: str) -> bool | None:
        """Say whether a place itself is ignored; None where no pattern fits it."""
        is_folder = place.endswith("/")
        names = composed(place).rstrip("/").split("/")
        for rule in self._rules:
            if rule.fits(names, is_folder=is_folder):
                return rule.is_positive
        return None

    def holds(self, place: str) -> bool:
        """Whether a place, or a folder that it is in, is among those that the patterns name."""
        is_folder = place.endswith("/")
        names = composed(place).rstrip("/").split("/")
        for rule in self._rules:
            if rule.fits(names, is_folder=is_folder) or any(
                rule.fits(names[:end], is_folder=True) for end in range(1, len(names))
            ):
                return rule.is_positive
        return False


@dataclass
class IgnoreFiles:
    """The rules of the ignore files met so far, by the folder below the base that they are in."""

    base: Path
    is_on: bool
    rules: dict[str, list[IgnoreRules]] = field(default_factory=dict[str, list[IgnoreRules]])

    def read(self, folder: str, folders: Sequence[str], files: Sequence[str]) -> None:
        """Read the ignore files of a folder; one that cannot be read has no rules."""
        if not self.is_on:
            return
        names = [name for name in IGNORE_FILES if name in files]
        for name in ([_EXCLUDE] if GIT in folders else []) + names:
            path = self.base / folder / name
            if path.is_file():  # a pipe would be waited for
                try:
                    with path.open("rb") as file:
                        text = file.read(MAX_IGNORE_BYTES).decode("utf-8-sig", "replace")
                except OSError:
                    continue
                lines = [line.removesuffix("\r") for line in text.split("\n")]
                self.rules.setdefault(folder, []).append(IgnoreRules(lines))

    def ignores(self, place: str) -> bool:
        """Whether a place is ignored: the nearest rule that says something decides.

        Args:
            place: the path below the base, with slashes; a folder's ends with one.
        """
        cut = len(place)
        while self.rules and cut > 0:
            cut = place.rfind("/", 0, cut - 1)
            for rules in reversed(self.rules.get(place[: max(cut, 0)], [])):
                said = rules.says(place[cut + 1 :])
                if said is not None:
                    return said
        return False


def _rule(pattern: str) -> _Rule | None:
    """Read a pattern; None for comments, empty lines and what can fit nothing."""
    if pattern.startswith("#") or len(pattern) > MAX_PATTERN_CHARS:
        return None
    pattern = _without_spaces(pattern)
    is_positive = not pattern.startswith("!")
    pattern = pattern if is_positive else pattern[1:]
    is_for_folders = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    is_anchored = "/" in pattern
    parts = pattern.removeprefix("/").split("/") if is_anchored else [pattern]
    if is_anchored and parts[-1] == _ANY_FOLDERS:  # all that is in there, but not the folder
        parts.append("*")
    names: list[str | re.Pattern[str]] = []
    for part in parts:
        name = _ANY_FOLDERS if part == _ANY_FOLDERS and is_anchored else _expression(part)
        if name is None:
            return None
        names.append(name)
    return _Rule(is_positive, is_for_folders, is_anchored, tuple(names))


def _without_spaces(pattern: str) -> str:
    """Return a pattern without the spaces at its end; one behind a backslash stays."""
    short = pattern.rstrip(" ")
    backslashes = len(short) - len(short.rstrip("\\"))
    return short + " " * (backslashes % 2) if short != pattern else pattern


def _fits(wanted: str | re.Pattern[str], name: str) -> bool:
    return wanted == name if isinstance(wanted, str) else wanted.fullmatch(name) is not None


def _fit(wanted: Sequence[str | re.Pattern[str]], names: Sequence[str]) -> bool:
    """Whether names are those wanted; only the last `**` before a place is ever tried again."""
    at = done = 0
    again: tuple[int, int] | None = None
    while done < len(names):
        if at < len(wanted) and wanted[at] == _ANY_FOLDERS:
            at += 1
            again = (at, done)
        elif at < len(wanted) and _fits(wanted[at], names[done]):
            at, done = at + 1, done + 1
        elif again is not None:
            again = (again[0], again[1] + 1)
            at, done = again
        else:
            return False
    return at == len(wanted)


def _expression(part: str) -> str | re.Pattern[str] | None:
    """Return what fits a name, a name that it stands for alone, or None where nothing fits."""
    pieces, is_literal, at = [""], True, 0
    literal = ""
    while at < len(part):
        found = _PART.match(part, at)
        if found is None:  # a backslash at the end
            return None
        at = found.end()
        if found["stars"]:
            pieces.append("")
        elif found["any"]:
            pieces[-1] += "."
        elif found["set"]:
            end, expression = _set(part, at)
            if not end:
                return None
            at, pieces[-1] = end, pieces[-1] + expression
        else:
            plain = found["escaped"] or found["plain"]
            literal, pieces[-1] = literal + plain, pieces[-1] + re.escape(plain)
            continue
        is_literal = False
    if is_literal and literal != _ANY_FOLDERS:
        return literal
    first, *others = pieces
    # What fits between two stars at first fits for good: no other place is ever tried.
    between = "".join(f"(?>.*?{piece})" for piece in others[:-1] if piece)
    return re.compile(first + between + (f".*{others[-1]}" if others else ""), re.S)


def _set(part: str, at: int) -> tuple[int, str]:
    """Read a set of characters behind its bracket; the place is 0 where it does not end."""
    is_negated = part[at : at + 1] in ("!", "^") and at < len(part)
    start = at = at + is_negated
    inside = ""
    while at < len(part) and (part[at] != "]" or at == start):
        found = _IN_SET.match(part, at)
        if found is None or (found["named"] is not None and found["named"] not in _CLASSES):
            return 0, ""
        at = found.end()
        inside += _members(found)
    if at >= len(part):
        return 0, ""
    if not inside:
        return at + 1, "." if is_negated else "(?!)"
    return at + 1, f"[{'^' * is_negated}{inside}]"


def _members(found: re.Match[str]) -> str:
    if found["named"] is not None:
        return _CLASSES[found["named"]]
    first = found["escaped"] or found["plain"]
    last = found["last_escaped"] or found["last"] or first
    return f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
