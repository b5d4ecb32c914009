"""Walks directories for files to store, and notes what it leaves out and why. Blocking."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts.ignore_rules import GIT, IgnoreFiles, IgnoreRules
from rlm_mcp.service.contexts.paths import braces_expanded, with_separator
from rlm_mcp.text import without_surrogates

MAX_ENTRIES = 500_000
MAX_WALK_SECONDS = 60.0
_LOOKED_AT_ONCE = 200
MAX_LISTED = 200
MAX_REASONS = 50
OTHER_REASONS = "other reasons"
HIDDEN = "hidden"
IGNORED = "ignored"
LINKED = "a link to a directory, not followed"

Check = Callable[[], None]


@dataclass(frozen=True)
class Choice:
    """Which files of a directory or glob are wanted.

    `include` and `exclude` are patterns as in a `.gitignore`, relative to the directory; without
    `include` all files are wanted. `honours_ignore_files` applies `.gitignore` and `.ignore`.
    `max_file_bytes` leaves larger files out. `has_hidden` takes hidden files and folders too.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    honours_ignore_files: bool = True
    max_file_bytes: int | None = None
    has_hidden: bool = False


EVERYTHING = Choice()


@dataclass
class Omissions:
    """What was left out: the first ones by name, and how many for each reason.

    `is_meant` says of a path whether somebody asked for it; what nobody asked for is not noted.
    """

    listed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    counts: Counter[str] = field(default_factory=Counter[str])
    is_meant: Callable[[str], bool] | None = None

    def note(self, name: str, reason: str, counted_as: str = "") -> None:
        """Note a file or directory, with its path relative to the base.

        Args:
            name: the path.
            reason: why it was left out.
            counted_as: the reason that it is counted under, where that is another one.
        """
        if self.is_meant is not None and not self.is_meant(name):
            return
        counted = counted_as or reason
        is_new = counted not in self.counts and len(self.counts) >= MAX_REASONS
        self.counts[OTHER_REASONS if is_new else counted] += 1
        if len(self.listed) < MAX_LISTED:
            self.listed.append((without_surrogates(name), reason))


def walk(
    base: Path, depth: int | None, choice: Choice, left_out: Omissions, check: Check
) -> Iterator[str]:
    """Yield the paths of files below a directory, down to `depth` levels, that are not left out.

    Hidden files and folders, and links to directories, are left out. Paths are plain strings: a
    `Path` costs more than all else that is done with most files.

    Raises:
        InvalidInputError: there is too much below it.
    """
    ignored = IgnoreFiles(base, choice.honours_ignore_files)
    wanted, unwanted = _chosen(choice.include, base), _chosen(choice.exclude, base)
    bound, above = _Bound(base), len(with_separator(str(base)))

    def unreadable(error: OSError) -> None:
        name = f"{os.path.relpath(error.filename, base)}/"
        left_out.note(name, f"cannot be read: {error.strerror}")

    for parent, folders, files in os.walk(base, onerror=unreadable):
        check()
        bound.count(len(folders) + len(files))
        here = parent[above:].replace(os.sep, "/")
        ignored.read(here, folders, files)
        start = here + "/" * bool(here)
        if depth is not None and start.count("/") + 1 >= depth:
            folders.clear()
        folders[:] = [
            name
            for name in sorted(folders)
            if _enters(start + name, choice, ignored, left_out)
            and not _is_excluded(f"{start}{name}/", unwanted, left_out)
        ]
        for number, name in enumerate(sorted(files)):
            if number % _LOOKED_AT_ONCE == 0:
                check()
                bound.count(0)
            place = start + name
            reason = _reason(name, place, choice, ignored)
            if not reason and wanted is not None and not wanted.holds(place):
                reason = "not included"
            if reason:
                left_out.note(place, reason)
            elif not _is_excluded(place, unwanted, left_out):
                yield with_separator(parent) + name


def _chosen(patterns: Sequence[str], base: Path) -> IgnoreRules | None:
    """Compile patterns of `include` or `exclude`, which may have braces and name the directory."""
    if not patterns:
        return None
    above = with_separator(str(base))
    meant = [
        f"/{one.removeprefix(above)}" if one.startswith(above) else one.removeprefix("./")
        for pattern in patterns
        for one in dict.fromkeys((pattern, *braces_expanded(pattern)))
    ]
    return IgnoreRules(meant)


def _is_excluded(place: str, unwanted: IgnoreRules | None, left_out: Omissions) -> bool:
    is_excluded = unwanted is not None and unwanted.holds(place)
    if is_excluded:
        left_out.note(place, "excluded")
    return is_excluded


def _reason(name: str, place: str, choice: Choice, ignored: IgnoreFiles) -> str:
    if name.startswith(".") and (name == GIT or not choice.has_hidden):
        return HIDDEN
    return IGNORED if ignored.ignores(place) else ""


def _enters(place: str, choice: Choice, ignored: IgnoreFiles, left_out: Omissions) -> bool:
    folder = ignored.base / place
    if folder.name.startswith(".") and (folder.name == GIT or not choice.has_hidden):
        left_out.note(f"{place}/", HIDDEN)
    elif folder.is_symlink():
        left_out.note(f"{place}/", LINKED)
    elif ignored.ignores(f"{place}/"):
        left_out.note(f"{place}/", IGNORED)
    else:
        return True
    return False


class _Bound:
    """Ends a walk that meets too many entries, or takes too long."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._entries = 0
        self._until = time.monotonic() + MAX_WALK_SECONDS

    def count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > MAX_ENTRIES or time.monotonic() > self._until:
            raise InvalidInputError(
                f"The directory {str(self._base)!r} is too large: the search ended after "
                f"{self._entries:,} entries.",
                fix="Name a smaller directory, leave folders out with `exclude`, or give a glob "
                "that begins further down.",
            )
