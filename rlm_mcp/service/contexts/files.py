"""Finding the text files that a path stands for, and reading them. All of it blocks."""

from __future__ import annotations

import fnmatch
import glob
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlm_mcp.errors import InvalidInputError, NotTextError, PathNotAllowedError
from rlm_mcp.service.contexts.charsets import CharsetDecoder
from rlm_mcp.service.contexts.paths import AllowedPaths
from rlm_mcp.store.database import storable

BATCH_BYTES = 1 << 20
MAX_ENTRIES = 500_000
MAX_WALK_SECONDS = 60.0
MAX_PATH_CHARS = 4096
MAX_DOUBLE_STARS = 3
SNIFFED_BYTES = 8192

Check = Callable[[], None]


@dataclass(frozen=True)
class FoundFiles:
    """What a path stands for: files in path order, with their names as documents.

    `is_single` is true for a file named directly, false for a directory or glob with one file.
    """

    files: tuple[tuple[str, Path], ...]
    skipped: tuple[tuple[str, str], ...] = ()
    is_single: bool = False


@dataclass(frozen=True)
class Piece:
    """Part of a document, in UTF-8; `name` is there on its first part alone.

    Its last part holds the charset that the file was in, and how many characters it lacks.
    """

    data: bytes
    name: str | None = None
    charset: str = ""
    replaced: int = 0


def find_files(path: str, allowed: AllowedPaths, check: Check = lambda: None) -> FoundFiles:
    """Find the files that `path` names: a file, a directory (recursively), or a glob.

    Links to directories are not followed. `check` is called often, and may raise to stop.

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
        return _find(path, allowed, check)
    except (OSError, RuntimeError) as error:  # RuntimeError: no such user, a link to itself
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(
            f"The path {shown!r} cannot be used: {reason}.",
            fix="Give the path of a file, a directory or a glob on the server's machine.",
        ) from error


def _find(path: str, allowed: AllowedPaths, check: Check) -> FoundFiles:
    given = Path(path).expanduser()
    if not given.is_absolute():
        given = Path.cwd() / given
    if glob.has_magic(path) and not given.exists():
        return _in_glob(given, path, allowed, check)
    real = allowed.check(given)
    if real.is_dir():
        return _texts_among(_walk(real, None, allowed, check), real, allowed)
    if real.is_file():
        return FoundFiles(((given.name, real),), is_single=True)
    if real.exists():
        raise InvalidInputError(
            f"The path {path!r} is neither a file nor a directory.",
            fix="Give a regular file, a directory or a glob.",
        )
    raise InvalidInputError(
        f"The path {path!r} does not exist on the server's machine.", fix=_nearest_entry(given)
    )


def _in_glob(pattern: Path, given: str, allowed: AllowedPaths, check: Check) -> FoundFiles:
    if ".." in pattern.parts or pattern.parts.count("**") > MAX_DOUBLE_STARS:
        raise InvalidInputError(
            f"The glob {given!r} has '..' in it, or more than {MAX_DOUBLE_STARS} times '**'.",
            fix="Write it as 'docs/**/*.md'.",
        )
    fixed = _fixed_part(pattern)
    base = allowed.check(fixed)
    wanted = pattern.parts[len(fixed.parts) :]
    depth = None if "**" in wanted else len(wanted)
    files = [
        file
        for file in _walk(base, depth, allowed, check)
        if _is_match(file.relative_to(base).parts, wanted)
    ]
    if not files:
        raise InvalidInputError(
            f"No file matches the glob {given!r}.",
            fix="Use ** for any depth, such as 'docs/**/*.md'.",
        )
    return _texts_among(files, Path(os.path.commonpath([file.parent for file in files])), allowed)


def fixed_part(path: str) -> Path:
    """The file or directory that a path names; of a glob, where it begins to look."""
    given = Path(path).expanduser()
    return _fixed_part(Path.cwd() / given) if glob.has_magic(path) else given


def _fixed_part(pattern: Path) -> Path:
    """The directory above the first wildcard: where a glob begins to look."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[1:]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _is_match(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a relative path fits a glob; `**` stands for any number of folders."""
    if not wanted:
        return not names
    if wanted[0] == "**":
        seen = next((n for n, name in enumerate(names) if name.startswith(".")), len(names))
        return any(_is_match(names[start:], wanted[1:]) for start in range(seen + 1))
    if not names or (names[0].startswith(".") and not wanted[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(names[0], wanted[0]) and _is_match(names[1:], wanted[1:])


def _walk(base: Path, depth: int | None, allowed: AllowedPaths, check: Check) -> Iterator[Path]:
    """Yield the files below a directory, down to `depth` levels."""
    until = time.monotonic() + MAX_WALK_SECONDS
    entries = 0
    for parent, folders, files in os.walk(base):
        check()
        entries += len(folders) + len(files)
        if entries > MAX_ENTRIES or time.monotonic() > until:
            raise InvalidInputError(
                f"The directory {str(base)!r} holds too much: {entries:,} entries were seen when "
                "looking was given up.",
                fix="Name a smaller directory, or a glob that begins further down.",
            )
        level = len(Path(parent).relative_to(base).parts)
        if depth is not None and level + 1 >= depth:
            folders.clear()
        if not allowed.hidden:
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
        yield from (Path(parent, file) for file in files)


def _texts_among(
    paths: Iterator[Path] | list[Path], base: Path, allowed: AllowedPaths
) -> FoundFiles:
    files: list[tuple[str, Path]] = []
    skipped: list[tuple[str, str]] = []
    for path in sorted(paths):
        name = storable(path.relative_to(base).as_posix())
        try:
            real = allowed.check(path)
        except PathNotAllowedError:
            skipped.append((name, "outside the allowed paths or hidden"))
            continue
        reason = why_not_text(real, allowed)
        if reason:
            skipped.append((name, reason))
        else:
            files.append((name, real))
    return FoundFiles(tuple(files), tuple(skipped))


def _nearest_entry(path: Path) -> str:
    for parent in path.parents:
        if parent.is_dir():
            return f"The nearest directory that exists is {str(parent)!r}."
    return "Give an absolute path."


def why_not_text(path: Path, allowed: AllowedPaths) -> str:
    """Say why a file cannot be stored as text, from its first bytes; empty if it can."""
    try:
        if not path.is_file():
            return "not a regular file"
        with allowed.open(path) as file:
            sample = file.read(SNIFFED_BYTES)
    except PathNotAllowedError:
        return "outside the allowed paths"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    decoder = CharsetDecoder()
    return why_no_text((decoder.feed(sample) + decoder.end())[:SNIFFED_BYTES])


def why_no_text(head: bytes) -> str:
    """Say why bytes that begin so cannot be stored as text; empty if they can."""
    if not head:
        return "empty"
    if b"\0" in head:
        return "binary"
    if _undecodable_share(head) > 0.1:
        return "text in no known charset"
    return ""


def _undecodable_share(head: bytes) -> float:
    text = head.decode("utf-8", "replace")
    return (text.count("\ufffd") - head.count(b"\xef\xbf\xbd")) / max(1, len(text))


def require_text(path: Path, allowed: AllowedPaths) -> None:
    """Refuse a file that holds no text.

    Raises:
        NotTextError: it is empty, binary or in no known charset.
    """
    reason = why_not_text(path, allowed)
    if reason:
        raise NotTextError(
            f"The file {str(path)!r} holds no text that can be stored: {reason}.",
            fix="Convert it to UTF-8 text first (for example with pdftotext or iconv).",
        )


def total_bytes(found: FoundFiles) -> int:
    """Add up the sizes of files; one that is gone by now counts nothing."""
    total = 0
    for _, path in found.files:
        try:
            total += path.stat().st_size
        except OSError:
            continue  # reading it reports the error
    return total


def read_batches(found: FoundFiles, allowed: AllowedPaths) -> Iterator[list[Piece]]:
    """Yield the files' text in order, about 1 MiB at a time, however many files that are.

    Raises:
        InvalidInputError: a file cannot be read.
        PathNotAllowedError: it is not where it was when it was found.
    """
    batch: list[Piece] = []
    size = 0
    for name, path in found.files:
        for piece in _pieces(name, path, allowed):
            batch.append(piece)
            size += len(piece.data)
            if size >= BATCH_BYTES or len(batch) >= 10_000:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _pieces(name: str, path: Path, allowed: AllowedPaths) -> Iterator[Piece]:
    try:
        with allowed.open(path) as file:
            data = file.read(BATCH_BYTES)
            decoder, first = CharsetDecoder(), name
            while first is not None or data:
                text, more = decoder.feed(data), file.read(BATCH_BYTES)
                if more:
                    yield Piece(text, first)
                else:
                    yield Piece(text + decoder.end(), first, decoder.charset, decoder.replaced)
                data, first = more, None
    except OSError as error:
        raise InvalidInputError(
            f"The file {str(path)!r} cannot be read: {error.strerror}.",
            fix="Check that it is still there and that the server's user may read it.",
        ) from error
