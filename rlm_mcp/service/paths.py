"""Which files a caller may name, and which of them hold text."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlm_mcp.errors import InvalidInputError, NotTextError, PathNotAllowedError

READ_BYTES = 1 << 20
_SNIFFED_BYTES = 8192


@dataclass(frozen=True)
class AllowedPaths:
    """The directories below which files may be read.

    Args:
        roots: resolved directories.
        hidden: whether entries whose name starts with a dot may be read below a root.
    """

    roots: tuple[Path, ...]
    hidden: bool = True

    @classmethod
    def chosen(cls, directories: Sequence[Path]) -> AllowedPaths:
        """The directories an operator named, with all that is in them."""
        return cls(tuple(directory.expanduser().resolve() for directory in directories))

    @classmethod
    def usual(cls, working_directory: Path, home: Path) -> AllowedPaths:
        """The working directory and the home directory, hidden entries left out.

        A working directory that holds the home directory (hosts start servers in `/`) is no choice
        that anybody made, so it does not count.
        """
        working_directory, home = working_directory.resolve(), home.resolve()
        roots = (home,) if home.is_relative_to(working_directory) else (working_directory, home)
        return cls(roots, hidden=False)

    def check(self, path: Path) -> Path:
        """Resolve `path`, symlinks included, and return it if it may be read.

        Raises:
            PathNotAllowedError: it lies elsewhere, or behind a hidden entry.
        """
        real = path.resolve()
        if any(self._allows(root, real) for root in self.roots):
            return real
        where = f" (it leads to {str(real)!r})" if real != path else ""
        raise PathNotAllowedError(
            f"The path {str(path)!r}{where} is outside the allowed paths: {self}.",
            fix="Move the file there, or have the operator add its directory to "
            "RLM_MCP_ALLOWED_PATHS.",
        )

    def _allows(self, root: Path, real: Path) -> bool:
        if not real.is_relative_to(root):
            return False
        return self.hidden or not any(part.startswith(".") for part in real.relative_to(root).parts)

    def __str__(self) -> str:
        if not self.roots:
            return "none"
        note = "" if self.hidden else ", hidden entries left out"
        return ", ".join(repr(str(root)) for root in self.roots) + note


@dataclass(frozen=True)
class FoundFiles:
    """What a path stands for: files in path order, with their names as documents.

    `is_single` tells a file named directly from a directory or glob with one file in it.
    """

    files: tuple[tuple[str, Path], ...]
    skipped: tuple[tuple[str, str], ...] = ()
    is_single: bool = False


def find_files(path: str, allowed: AllowedPaths) -> FoundFiles:
    """Find the files that `path` names: a file, a directory (recursively), or a glob. Blocks.

    Raises:
        InvalidInputError: nothing is there.
        PathNotAllowedError: it lies outside the allowed paths.
    """
    given = Path(path).expanduser()
    if not given.is_absolute():
        given = Path.cwd() / given
    if given.is_dir():
        return _in_directory(allowed.check(given), allowed)
    if given.is_file():
        return FoundFiles(((given.name, allowed.check(given)),), is_single=True)
    if given.exists():
        allowed.check(given)
        raise InvalidInputError(
            f"The path {path!r} is neither a file nor a directory.",
            fix="Give a regular file, a directory or a glob.",
        )
    if glob.has_magic(path):
        return _in_glob(given, path, allowed)
    allowed.check(given)
    raise InvalidInputError(
        f"The path {path!r} does not exist on the server's machine.",
        fix=_nearest_entry(given),
    )


def _in_directory(directory: Path, allowed: AllowedPaths) -> FoundFiles:
    paths: list[Path] = []
    for parent, folders, files in os.walk(directory):
        if not allowed.hidden:
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
        paths.extend(Path(parent, file) for file in files)
    return _sorted_files(paths, directory, allowed)


def _in_glob(pattern: Path, given: str, allowed: AllowedPaths) -> FoundFiles:
    allowed.check(_fixed_part(pattern))
    paths = [Path(hit) for hit in glob.iglob(str(pattern), recursive=True)]  # noqa: PTH207  # pathlib's glob takes no absolute pattern
    files = [path for path in paths if path.is_file()]
    if not files:
        raise InvalidInputError(
            f"No file matches the glob {given!r}.",
            fix="Use ** for any depth, such as 'docs/**/*.md'.",
        )
    return _sorted_files(files, Path(os.path.commonpath([path.parent for path in files])), allowed)


def _fixed_part(pattern: Path) -> Path:
    """The directory above the first wildcard: what a glob would walk."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[1:]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _sorted_files(paths: list[Path], base: Path, allowed: AllowedPaths) -> FoundFiles:
    files: list[tuple[str, Path]] = []
    skipped: list[tuple[str, str]] = []
    for path in sorted(paths):
        name = path.relative_to(base).as_posix()
        try:
            real = allowed.check(path)
        except PathNotAllowedError:
            skipped.append((name, "outside the allowed paths or hidden"))
            continue
        reason = why_not_text(real)
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


def why_not_text(path: Path) -> str:
    """Say why a file cannot be stored as text, from its first bytes; empty if it can. Blocks."""
    try:
        if not path.is_file():
            return "not a regular file"
        with path.open("rb") as file:
            head = file.read(_SNIFFED_BYTES)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return "empty"
    if b"\0" in head:
        return "binary"
    if _undecodable_share(head) > 0.1:
        return "not UTF-8 text"
    return ""


def _undecodable_share(head: bytes) -> float:
    text = head.decode("utf-8", "replace")
    return (text.count("\ufffd") - head.count(b"\xef\xbf\xbd")) / max(1, len(text))


def require_text(path: Path) -> None:
    """Refuse a file that holds no text. Blocks.

    Raises:
        NotTextError: it is empty, binary or in another encoding.
    """
    reason = why_not_text(path)
    if reason:
        raise NotTextError(
            f"The file {str(path)!r} holds no text that can be stored: {reason}.",
            fix="Convert it to UTF-8 text first (for example with pdftotext or iconv).",
        )


def read_pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, about 1 MiB at a time. Blocks.

    Raises:
        InvalidInputError: it cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(READ_BYTES):
                yield piece
    except OSError as error:
        raise InvalidInputError(
            f"The file {str(path)!r} cannot be read: {error.strerror}.",
            fix="Check that the server's user may read it.",
        ) from error
