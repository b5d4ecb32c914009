"""Which files a caller may name."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import platform
import re
import stat
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from io import FileIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rlm_mcp.errors import InvalidInputError, PathNotAllowedError

if sys.platform == "darwin":
    import fcntl  # not there on every platform

# A directory may hold more entries than anybody waits for.
_MAX_LOOKED_AT = 10_000
MAX_BRACES = 100
_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_ESCAPED = re.compile(r"\\(.)")  # as a terminal writes a file that is dropped on it
WINDOWS_PATH_CHARS = 248  # what a directory's path may have there; a file's has a few more
# Without the last two, a link or a pipe put in the way would be followed or waited for.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


@dataclass(frozen=True)
class AllowedPaths:
    """The directories below which files may be read.

    Args:
        roots: resolved directories.
        hidden: whether entries whose name starts with a dot may be read below a root.
        is_remote: the caller may be on another machine, which learns no other path of this one.
        own: how paths begin that are the server's own: they hold what belongs to all callers.
    """

    roots: tuple[Path, ...]
    hidden: bool = True
    is_remote: bool = False
    own: tuple[str, ...] = ()

    @classmethod
    def chosen(cls, directories: Sequence[Path]) -> AllowedPaths:
        """The directories an operator named, with all that is in them."""
        return cls(tuple(directory.expanduser().resolve() for directory in directories))

    @classmethod
    def usual(cls, working_directory: Path, home: Path) -> AllowedPaths:
        """The working directory and the home directory, hidden entries left out.

        A working directory that holds the home directory does not count: nobody chose it, since
        hosts start servers in `/`.
        """
        working_directory, home = working_directory.resolve(), home.resolve()
        roots = (home,) if home.is_relative_to(working_directory) else (working_directory, home)
        return cls(roots, hidden=False)

    def beside(self, named: Iterable[Path]) -> AllowedPaths:
        """Allow these files and directories too."""
        found = (real for path in named if (real := _resolved(path)) is not None)
        return replace(self, roots=(*self.roots, *found))

    def check(self, path: Path, given: str = "") -> Path:
        """Resolve `path`, symlinks included, and return it if it may be read.

        Args:
            given: how the caller wrote it, who learns no more of it from another machine.

        Raises:
            PathNotAllowedError: it lies elsewhere, or behind a hidden entry.
        """
        real = path.resolve()
        if self.allows_real(str(real)):
            return real
        if self._is_own(str(real)):
            raise PathNotAllowedError(
                f"The path {given or str(path)!r} belongs to the server's own data.",
                fix="Give a file of yours; what is stored has a handle.",
            )
        where = f" (it leads to {str(real)!r})" if real != path else ""
        shown = f" {given!r}" * bool(given) if self.is_remote else f" {str(path)!r}{where}"
        raise PathNotAllowedError(
            f"The path{shown} is outside the allowed paths: {self}.",
            fix="Move the file there, or have the operator add its directory to "
            "RLM_MCP_ALLOWED_PATHS.",
        )

    def allows_real(self, real: str) -> bool:
        """Say whether a path may be read that is absolute and holds no symlinks."""
        return not self._is_own(real) and any(self._is_below(root, real) for root in self._roots)

    def allows(self, path: Path) -> bool:
        """Say whether a path may be read, symlinks resolved."""
        real = _resolved(path)
        return real is not None and self.allows_real(str(real))

    def open(self, path: Path | str) -> FileIO:
        """Open a path that was checked, to read, and see that what was opened may be read too.

        Whoever may write to a directory can put a link in the path between the two.

        Raises:
            PathNotAllowedError: what was opened lies elsewhere.
            OSError: it cannot be opened, or is not a regular file.
        """
        file = FileIO(os.open(openable(str(path)), _OPEN_FLAGS), "rb")
        try:
            self._check_opened(path, file.fileno())
        except BaseException:
            file.close()
            raise
        return file

    def _check_opened(self, path: Path | str, descriptor: int) -> None:
        place = _place(descriptor)
        if place is not None and not self.allows_real(place):
            raise PathNotAllowedError(
                f"The path {str(path)!r} was changed after it was checked, and now leads out of "
                "the allowed paths.",
                fix="Try again when nothing changes its directories any more.",
            )
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")

    @cached_property
    def _roots(self) -> tuple[str, ...]:
        return tuple(with_separator(str(root)) for root in self.roots)

    @cached_property
    def _own(self) -> tuple[str, ...]:
        return tuple(map(os.path.normcase, self.own))

    def _is_own(self, real: str) -> bool:
        return os.path.normcase(real).startswith(self._own)

    def _is_below(self, root: str, real: str) -> bool:
        inner = with_separator(real)
        if not os.path.normcase(inner).startswith(os.path.normcase(root)):
            return False
        # The separator that ends the root comes before the first name.
        return self.hidden or os.sep + "." not in inner[len(root) - 1 :]

    def __str__(self) -> str:
        if not self.roots:
            return "none"
        note = "" if self.hidden else ", hidden entries left out"
        return ", ".join(repr(str(root)) for root in self.roots) + note


def _resolved(path: Path) -> Path | None:
    """Follow symlinks; None where they lead in a circle."""
    with suppress(OSError, RuntimeError):
        return path.resolve()
    return None


def openable(path: str, platform: str = sys.platform) -> str:
    r"""Return how to name a path to the system.

    Windows opens longer ones than 260 characters only in its own form, `\\?\C:\...`.
    """
    if platform != "win32" or len(path) < WINDOWS_PATH_CHARS or path.startswith("\\\\?\\"):
        return path
    if path.startswith("\\\\"):  # of another machine
        return "\\\\?\\UNC\\" + path[2:]
    return "\\\\?\\" + path if path[1:3] == ":\\" else path


def _place(descriptor: int) -> str | None:
    """Return the real path of an open file; None where the platform does not provide it."""
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  # read for every file
    if sys.platform == "darwin":
        name = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024))
        return os.fsdecode(name.rstrip(b"\0"))
    return None


def with_separator(directory: str) -> str:
    """Return a directory's path such that a name in it can follow."""
    return directory if directory.endswith(os.sep) else directory + os.sep


def paths_starting_with(prefix: str, allowed: AllowedPaths, limit: int) -> list[str]:
    """Return entries that may be read and whose path starts so, directories with a `/`; blocks."""
    roots = [f"{root}/" for root in allowed.roots]
    if not prefix.startswith("/"):
        return roots
    found = [root for root in roots if root.startswith(prefix)]
    directory, _, start = prefix.rpartition("/")
    with suppress(OSError, ValueError):
        for entry in sorted(Path(directory or "/").iterdir())[:_MAX_LOOKED_AT]:
            if entry.name.startswith(start) and len(found) < limit and allowed.allows(entry):
                found.append(f"{entry}/" if entry.is_dir() else str(entry))
    return list(dict.fromkeys(found))


def meant_path(path: str) -> str:
    """Return the path that was meant: pasted in quotes, from a shell, or as a `file:` URL.

    A path that exists is never changed.
    """
    if _exists(path):
        return path
    stripped = path.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'":
        stripped = stripped[1:-1]
    if stripped.lower().startswith("file:/"):
        stripped = _path_of_url(stripped)
    unescaped = _ESCAPED.sub(r"\1", stripped) if os.sep == "/" else stripped
    given = unescaped if "\\ " in stripped else stripped  # a glob's wildcards are never escaped
    forms = (stripped, unescaped, path_of_windows(stripped) or stripped)
    return next((form for form in forms if _exists(str(as_on_disk(Path(form))))), given)


def _path_of_url(url: str) -> str:
    address = urlsplit(url)
    if address.netloc.lower() not in ("", "localhost", platform.node().lower()):
        raise InvalidInputError(
            f"The address {url[:200]!r} names a file of another machine, {address.netloc[:100]!r}.",
            fix="Give the path of a file, a directory or a glob on the server's machine.",
        )
    path = unquote(address.path + f"?{address.query}" * bool(address.query))  # or a wildcard
    whole = f"{path}#{unquote(address.fragment)}"  # of a name that was not quoted
    path = whole if address.fragment and _exists(whole) else path
    return path.lstrip("/") if sys.platform == "win32" else path  # /C:/texts/a.txt


def path_of_windows(path: str) -> str:
    """Return where the Linux in Windows has a file by its path in Windows; empty for others."""
    if sys.platform == "win32" or not _OF_WINDOWS.match(path):
        return ""
    return f"/mnt/{path[0].lower()}/" + path[3:].replace("\\", "/")


def as_on_disk(path: Path) -> Path:
    """Return a path in the Unicode normal forms that its parts have on disk, as far as it exists.

    macOS hands out names in another form than people type.
    """
    if str(path).isascii() or _exists(str(path)):
        return path
    path = path.expanduser()
    found = Path(path.anchor)
    for part in path.parts[len(found.parts) :]:
        forms = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        found /= next((form for form in forms if _exists(str(found / form))), part)
    return found


def composed(name: str) -> str:
    """Return a name in the normal form in which names are compared."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _exists(path: str) -> bool:
    with suppress(OSError, RuntimeError, ValueError):
        return Path(path).expanduser().exists()
    return False


def has_wildcard(part: str) -> bool:
    """Whether a part of a path has `*`, `?` or `[` in it."""
    return glob.has_magic(part)


def glob_patterns(path: str) -> list[str]:
    """Return the patterns that a glob stands for, its braces expanded; none if it is not a glob."""
    expanded = braces_expanded(path)
    if len(expanded) == 1 and not glob.has_magic(path):
        return []
    return expanded


def braces_expanded(pattern: str) -> list[str]:
    """Expand `{a,b}` as shells do; a brace without a comma stands for itself.

    Raises:
        InvalidInputError: there are too many of them.
    """
    found = re.search(r"\{([^{}]*,[^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    expanded = [
        one
        for choice in found[1].split(",")
        for one in braces_expanded(pattern[: found.start()] + choice + pattern[found.end() :])
    ]
    if len(expanded) > MAX_BRACES:
        raise InvalidInputError(
            f"The braces of the glob {pattern[:200]!r} expand to more than {MAX_BRACES} patterns.",
            fix="Use * or ** instead, or narrow it with include.",
        )
    return expanded


def is_match(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a relative path fits a glob; `**` stands for any number of folders.

    A part that is called just as the pattern is written fits too, brackets or not.
    """
    if not wanted:
        return not names
    if wanted[0] == "**":
        seen = next((n for n, name in enumerate(names) if name.startswith(".")), len(names))
        return any(is_match(names[start:], wanted[1:]) for start in range(seen + 1))
    if not names or (names[0].startswith(".") and not wanted[0].startswith(".")):
        return False
    fits = names[0] == wanted[0] or fnmatch.fnmatchcase(names[0], wanted[0])
    return fits and is_match(names[1:], wanted[1:])
