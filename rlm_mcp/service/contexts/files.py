"""Finding the files that a path names. All of it blocks."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path

from rlm_mcp.errors import InvalidInputError, NotTextError, PathNotAllowedError, RLMError
from rlm_mcp.service.contexts.decompression import Unpacker
from rlm_mcp.service.contexts.paths import (
    AllowedPaths,
    as_on_disk,
    composed,
    glob_patterns,
    has_wildcard,
    is_match,
    meant_path,
    path_of_windows,
    with_separator,
)
from rlm_mcp.service.contexts.text_reader import (
    EMPTY,
    MIN_HOLE_BYTES,
    SNIFFED_BYTES,
    coding_of,
    peek,
    why_no_text,
)
from rlm_mcp.service.contexts.walking import EVERYTHING, Check, Choice, Omissions, walk
from rlm_mcp.service.documents.kinds import (
    how_to_install,
    is_installed,
    kind_of,
    why_not_converted,
)
from rlm_mcp.text import without_surrogates

_PIECE_BYTES = 1 << 20
MAX_PATH_CHARS = 4096
MAX_DOUBLE_STARS = 3
MAX_HOLE_BYTES = 64 << 20
_LEADS_NOWHERE = "a link that leads nowhere"
_NOT_ALLOWED = "outside the allowed paths or hidden"


@dataclass(frozen=True)
class FoundFiles:
    """What a path names: files in path order, with their names as documents.

    `is_single` is true for a file named directly, false for a directory or glob with one file.
    `skipped` names what was left out, the first of it; `skipped_total` counts all by reason.
    `name` is the last part of the path, as it was meant.
    """

    files: tuple[tuple[str, Path], ...]
    skipped: tuple[tuple[str, str], ...] = ()
    skipped_total: Mapping[str, int] = field(default_factory=dict[str, int])
    is_single: bool = False
    name: str = ""


def find_files(
    path: str, allowed: AllowedPaths, check: Check = lambda: None, choice: Choice = EVERYTHING
) -> FoundFiles:
    """Find the files that `path` names: a file, a directory (recursively), or a glob.

    A path may also be a `file:` URL, stand in quotes, have its spaces escaped as in a shell, or be
    spelled in another Unicode normal form than on disk. Links to directories are not followed.
    `check` is called often, and may raise to stop. `choice` narrows a directory or glob.

    Raises:
        InvalidInputError: nothing is there, it cannot be read, or there is too much of it.
        PathNotAllowedError: it lies outside the allowed paths.
    """
    shown = path if len(path) <= 200 else f"{path[:200]}..."
    if len(path) > MAX_PATH_CHARS or "\0" in path:
        raise InvalidInputError(
            f"The path {shown!r} is not a path: it has {len(path):,} characters"
            + (" and a NUL among them." if "\0" in path else "."),
            fix="Give the path of a file, a directory or a glob on the server's machine.",
        )
    try:
        meant = meant_path(path)
        if not meant.strip():
            raise InvalidInputError(
                f"The path {shown!r} names nothing.",
                fix="Give the path of a file, a directory or a glob; '.' is the working directory.",
            )
        return replace(_find(meant, allowed, check, choice), name=Path(meant).name or meant)
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user, a link to itself
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise InvalidInputError(
            f"The path {shown!r} cannot be used: {reason}.",
            fix="Give the path of a file, a directory or a glob on the server's machine.",
        ) from error


def _find(path: str, allowed: AllowedPaths, check: Check, choice: Choice) -> FoundFiles:
    given = _absolute(path)
    if (mounted := path_of_windows(path)) and not given.exists():
        raise InvalidInputError(
            f"The path {path!r} is one of Windows, and the server does not run there.",
            fix=f"The Linux in Windows (WSL) has such files below /mnt: {mounted!r}.",
        )
    if glob_patterns(path) and not given.exists():
        return _in_glob(path, allowed, check, choice)
    real = allowed.check(given, path)
    if real.is_dir():
        left_out = Omissions()
        files = list(walk(real, None, choice, left_out, check))
        return _texts_among(files, real, allowed, choice, left_out, check)
    if real.is_file():
        return FoundFiles(((given.name, real),), is_single=True)
    if special := _special(given):
        raise InvalidInputError(
            f"The path {path!r} is {special}, and neither a file nor a directory.",
            fix="Give a regular file, a directory or a glob. What a program writes goes through a "
            "pipe into `rlm-mcp contexts add -`.",
        )
    raise InvalidInputError(
        f"The path {path!r} does not exist on the server's machine.",
        fix=_nearest_entry(given),
    )


def _special(path: Path) -> str:
    """Say what exists by a path and is not a regular file; empty where nothing does."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def _absolute(path: str) -> Path:
    given = Path(path).expanduser()
    return as_on_disk(given if given.is_absolute() else Path.cwd() / given)


def _in_glob(given: str, allowed: AllowedPaths, check: Check, choice: Choice) -> FoundFiles:
    patterns = [_absolute(one) for one in glob_patterns(given)]
    for pattern in patterns:
        if ".." in pattern.parts or pattern.parts.count("**") > MAX_DOUBLE_STARS:
            raise InvalidInputError(
                f"The glob {given!r} has '..' in it, or more than {MAX_DOUBLE_STARS} times '**'.",
                fix="Write it as 'docs/**/*.md'.",
            )
    left_out = Omissions()
    files: dict[str, None] = {}
    noted: set[str] = set()
    for pattern in patterns:
        files |= dict.fromkeys(_matching(pattern, allowed, choice, left_out, noted, check))
    if not files:
        raise _no_match(given, left_out)
    left_out.is_meant = None
    base = Path(os.path.commonpath([Path(file).parent for file in files]))
    return _texts_among(list(files), base, allowed, choice, left_out, check)


def _no_match(given: str, left_out: Omissions) -> InvalidInputError:
    counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.counts.most_common())
    also = f"; left out of the search were: {counts}" * bool(counts)
    return InvalidInputError(
        f"No file matches the glob {given!r}{also}.",
        fix="Use ** for any depth, such as 'docs/**/*.md'"
        + "; give what is left out by its own path" * bool(counts)
        + ".",
    )


def _matching(
    pattern: Path,
    allowed: AllowedPaths,
    choice: Choice,
    left_out: Omissions,
    noted: set[str],
    check: Check,
) -> Iterator[str]:
    """Yield the files that fit a glob; of what is left out, note once what fits it too."""
    fixed = _fixed_part(pattern)
    base = allowed.check(fixed)
    wanted = [composed(part) for part in pattern.parts[len(fixed.parts) :]]
    if not wanted and base.is_file():  # one of several names in braces
        yield str(base)
    if not wanted:
        return
    depth = None if "**" in wanted else len(wanted)
    names_hidden = any(part.startswith(".") for part in wanted)
    choice = replace(choice, has_hidden=choice.has_hidden or names_hidden)
    above = len(with_separator(str(base)))

    def is_meant(name: str) -> bool:
        is_first = f"{base}/{name}" not in noted
        noted.add(f"{base}/{name}")
        return is_first and (name.endswith("/") or is_match(composed(name).split("/"), wanted))

    left_out.is_meant = is_meant
    for file in walk(base, depth, choice, left_out, check):
        if is_match(composed(file[above:]).replace(os.sep, "/").split("/"), wanted):
            yield file


def fixed_part(path: str) -> Path:
    """The file or directory that a path names; of a glob, where it begins to look."""
    meant = meant_path(path)
    patterns = glob_patterns(meant)
    return _fixed_part(_absolute(patterns[0])) if patterns else as_on_disk(Path(meant).expanduser())


def _fixed_part(pattern: Path) -> Path:
    """The directory above the first wildcard; a folder named like one is not a wildcard."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[1:]:
        if has_wildcard(part) and not (fixed / part).is_dir():
            break
        fixed /= part
    return fixed


def _texts_among(
    paths: Sequence[str],
    base: Path,
    allowed: AllowedPaths,
    choice: Choice,
    left_out: Omissions,
    check: Check,
) -> FoundFiles:
    files: list[tuple[str, Path]] = []
    above = len(with_separator(str(base)))
    named = ((path[above:].replace(os.sep, "/"), path) for path in paths)
    for name, path in sorted(named, key=lambda one: one[0].split("/")):
        check()
        real, reason = _real_file(path, allowed)
        reason = reason or why_not_text(real, allowed, choice.max_file_bytes)
        if reason:
            left_out.note(name, reason)
        else:
            files.append((without_surrogates(name), Path(real)))
    listed = tuple(sorted(left_out.listed))
    return FoundFiles(tuple(files), listed, dict(left_out.counts))


def _real_file(path: str, allowed: AllowedPaths) -> tuple[str, str]:
    """Return where a file below a resolved base is, and why it may not be read, if so."""
    try:
        # Only a link leads elsewhere.
        real = str(allowed.check(Path(path))) if os.path.islink(path) else path  # noqa: PTH114
    except PathNotAllowedError:
        return path, _NOT_ALLOWED
    except (OSError, RuntimeError):  # links that lead in a circle
        return path, _LEADS_NOWHERE
    if real is not path and not os.path.exists(real):  # noqa: PTH110  # `real` is a string
        return path, _LEADS_NOWHERE
    return real, "" if allowed.allows_real(real) else _NOT_ALLOWED


def _nearest_entry(path: Path) -> str:
    for parent in path.parents:
        if parent.is_dir():
            return f"The nearest directory that exists is {str(parent)!r}."
    return "Give an absolute path."


def why_not_text(path: str, allowed: AllowedPaths, max_bytes: int | None = None) -> str:
    """Say why a file cannot be stored as text, from its first bytes; empty if it can."""
    try:
        if not os.path.isfile(path):  # noqa: PTH113  # a Path for each of many files takes long
            return "not a regular file"
        with allowed.open(path) as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                return f"larger than RLM_MCP_MAX_FILE_BYTES ({max_bytes:,})"
            return _why_not_taken(os.path.basename(path), file)  # noqa: PTH119  # likewise
    except PathNotAllowedError:
        return "outside the allowed paths"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _why_not_taken(name: str, file: FileIO) -> str:
    head = file.read(SNIFFED_BYTES)
    kind = kind_of(name, head)
    if kind and is_installed():
        return ""
    try:
        begin = head if why_not_converted(kind) else _with_hole_cut(file, head)
        return why_not_converted(kind) or why_no_text(peek(begin, SNIFFED_BYTES))
    except RLMError as error:
        return f"not text: {error.message.rstrip('.')}"


def _with_hole_cut(file: FileIO, head: bytes) -> bytes:
    """Return the first bytes; of a hole of NULs there, compressed or not, little and what follows.

    Raises:
        InvalidInputError, TooLargeError: they are not whole gzip or zstd.
    """
    if not head.strip(b"\0"):
        pieces = _data_behind(file, len(head))
    elif coding := coding_of(head):
        if next(Unpacker(coding).unpack(head), b"").strip(b"\0"):
            return head
        file.seek(0)  # zstd may need more than the first bytes to give any
        pieces = _unpacked(file, coding)
    else:
        return head
    for piece in pieces:
        if behind := piece.lstrip(b"\0"):
            return bytes(MIN_HOLE_BYTES) + (behind + next(pieces, b""))[:SNIFFED_BYTES]
    return head


def _data_behind(file: FileIO, start: int) -> Iterator[bytes]:
    """Yield what a file holds, without what takes no room on the disk; not too much of it."""
    at, end = start, start + MAX_HOLE_BYTES
    while at < end:
        if sys.platform != "win32":
            try:
                data = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # there is no more
                    return
            else:
                at, end = data, end + data - at
        piece = file.read(_PIECE_BYTES)
        if not piece:
            return
        yield piece
        at += len(piece)


def _unpacked(file: FileIO, coding: str) -> Iterator[bytes]:
    unpacker = Unpacker(coding)
    for _ in range(MAX_HOLE_BYTES // _PIECE_BYTES):
        piece = file.read(_PIECE_BYTES)
        if not piece:
            unpacker.end()
            return
        yield from unpacker.unpack(piece)


def require_text(path: Path, allowed: AllowedPaths) -> None:
    """Refuse a file that holds no text.

    Raises:
        NotTextError: it is empty, binary or in no known charset.
    """
    reason = why_not_text(str(path), allowed)
    if reason:
        raise NotTextError(
            f"The file {str(path)!r} holds no text that can be stored: {reason}.",
            fix=_way_on(reason),
        )


def _way_on(reason: str) -> str:
    if reason == EMPTY:
        return "Give a file with text in it."
    if how_to_install() in reason:
        return "Install it for the server, or convert the file to text first."
    return "Convert it to UTF-8 text first (for example with iconv)."
