"""The folder of a database's text files: one folder a caller in it; room is made by age. Blocking.

A text that several callers hold has a file for each: how soon a question over it begins must not
tell whether another caller has it. Likewise room is made at the cost of the caller who uses most.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING

from rlm_mcp import __version__
from rlm_mcp.store.contexts.text_file import (
    DRAFT_SUFFIX,
    SUFFIX,
    Draft,
    Seal,
    is_left,
    open_file,
    read_seal,
)

if TYPE_CHECKING:
    from rlm_mcp.store.contexts.reading import StoredSource
    from rlm_mcp.store.database import Database

_NAME_CHARS = 32
_OWNER = "database"  # a file that names the database that a folder belongs to
_USUAL_BYTES = 20_000_000_000
_SHARE_OF_DISK = 0.2
_LEAVES_BYTES = 1_000_000_000  # for the database, which may be on the same disk


@dataclass(frozen=True)
class _Found:
    """A file with its seal, if it is one that can be used."""

    path: Path
    bytes: int
    used_ns: int
    seal: Seal | None


class TextFolder:
    """The files of one database.

    Args:
        directory: where each database has a folder.
        most_bytes: what its files may take; None for a share of the disk.
    """

    def __init__(self, database: Database, directory: Path, most_bytes: int | None) -> None:
        self._database = database
        self._directory = directory
        self._most_bytes = most_bytes
        self.path = directory / _short_digest(str(database.path.absolute()))

    def path_of(self, source: StoredSource) -> Path:
        """Return where the file of a source is; another version of this package has its own."""
        name = _short_digest(f"{__version__} {source.key}")
        return self._of_caller(source.caller) / f"{name}{SUFFIX}"

    def _of_caller(self, caller: str) -> Path:
        return self.path / _short_digest(caller)

    def find(self, source: StoredSource) -> tuple[int, Seal] | None:
        """Open the file of a source and return its seal; a file that is not right is deleted.

        Raises:
            OSError: the folder cannot be read.
            ValueError: the file was there and is not what was checked.
        """
        path = self.path_of(source)
        try:
            descriptor = open_file(path)
        except FileNotFoundError:
            return None
        try:
            seal = read_seal(descriptor)
            if seal and (seal.key, seal.texts) == (source.key, tuple(source.digests)):
                # Its age decides what is deleted first; the time of its change must stay.
                os.utime(descriptor, ns=(time.time_ns(), seal.changed_ns))
                return descriptor, seal
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise ValueError(f"{str(path)!r} was changed, or is of an earlier boot of the machine")

    def begin(self, source: StoredSource) -> Draft | None:
        """Begin a file; None if there is no room for it.

        Raises:
            OSError: the folder cannot be written, or is not this user's alone.
        """
        if self._most_bytes == 0:
            return None
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = self._of_caller(source.caller)
        _make_private(self.path)
        _make_private(folder)
        owner = self.path / _OWNER
        if not owner.exists():
            owner.write_text(str(self._database.path.absolute()), "utf-8")
        return Draft(folder, source) if self._make_room(source.text_bytes) else None

    def _make_room(self, need: int) -> bool:
        room = self.most_bytes() - need
        if room < 0:
            return False
        self._evict(room)
        return True

    def most_bytes(self) -> int:
        """Return what the files may take, which is less where the disk is nearly full."""
        disk = shutil.disk_usage(self.path)
        most = self._most_bytes
        if most is None:
            most = min(_USUAL_BYTES, int(_SHARE_OF_DISK * disk.total))
        return min(most, self.held_bytes() + disk.free - _LEAVES_BYTES)

    def held_bytes(self, caller: str | None = None) -> int:
        """Return what the files of a caller take; of all callers for None."""
        files = self._files() if caller is None else _files_in(self._of_caller(caller))
        return sum(one.bytes for one in files)

    def _evict(self, most_bytes: int) -> int:
        """Delete the oldest file of the caller who has most, again and again; return how many."""
        by_caller: dict[Path, list[_Found]] = {}
        for one in sorted(self._files(), key=lambda one: one.used_ns):
            by_caller.setdefault(one.path.parent, []).append(one)
        sizes = {folder: sum(one.bytes for one in files) for folder, files in by_caller.items()}
        evicted = 0
        while sum(sizes.values()) > max(0, most_bytes):
            largest = max(sizes, key=lambda folder: sizes[folder])
            oldest = by_caller[largest].pop(0)
            sizes[largest] -= oldest.bytes
            evicted += _delete(oldest.path)
        return evicted

    def drop_deleted(self, source: StoredSource) -> None:
        """Delete the file of a source unless its caller still has each of its texts."""
        with self._database.open_reader() as db:
            is_held = _has_texts(db, source.caller, source.handles, source.digests)
        if not is_held:
            _delete(self.path_of(source))

    def drop(self, caller: str, sha256: str) -> int:
        """Delete a caller's files that hold a text; return how many."""
        files = _files_in(self._of_caller(caller))
        return sum(_delete(one.path) for one in files if not one.seal or sha256 in one.seal.texts)

    def sweep(self) -> int:
        """Delete what is of no use any more; return how many files.

        These are files whose caller no longer has each of their texts, files of an earlier boot or
        that were changed, what killed processes left, what is over the bound, and the files of
        databases that are gone.
        """
        swept = sum(map(_delete_all, _lost_folders(self._directory)))
        files = list(self._files())
        if files:
            with self._database.open_reader() as db:
                swept += sum(_delete(one.path) for one in files if not _is_held(db, one))
            swept += self._evict(self.most_bytes())
        return swept + sum(_delete(path) for path in _drafts(self.path) if is_left(path))

    def _files(self) -> Iterator[_Found]:
        for folder in _folders(self.path):
            yield from _files_in(folder)


def bytes_below(directory: Path) -> int:
    """Return what the files of all databases take in a directory, which may not be there."""
    return sum(
        one.bytes
        for database in _folders(directory)
        for folder in _folders(database)
        for one in _files_in(folder)
    )


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_NAME_CHARS]


def _make_private(folder: Path) -> None:
    """Make a folder that only this user can open.

    Raises:
        OSError: it cannot be made, or is there and is somebody else's, or open to others.
    """
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    folder.mkdir(exist_ok=True, mode=0o700)
    if not _is_private(folder):
        raise PermissionError(f"{str(folder)!r} is not a directory of this user alone (mode 700)")


def _is_private(folder: Path) -> bool:
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    try:
        found = folder.lstat()
    except OSError:
        return False
    is_closed = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return is_closed and found.st_uid == os.geteuid()


def _folders(path: Path) -> list[Path]:
    """Return the folders of ours in a directory, none where there is no directory."""
    with suppress(OSError):
        return [one for one in path.iterdir() if len(one.name) == _NAME_CHARS and _is_private(one)]
    return []


def _files_in(folder: Path) -> Iterator[_Found]:
    for path in list(folder.glob(f"*{SUFFIX}")):
        with suppress(OSError):  # another process deleted it
            descriptor = open_file(path)
            try:
                found = os.fstat(descriptor)
                seal = read_seal(descriptor)
            finally:
                os.close(descriptor)
            yield _Found(path, found.st_size, found.st_atime_ns, seal)


def _drafts(path: Path) -> Iterator[Path]:
    for folder in _folders(path):
        yield from list(folder.glob(f"*{DRAFT_SUFFIX}"))


def _delete(path: Path) -> bool:
    """Delete a file; whoever maps it keeps what they map."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _is_held(db: Connection, one: _Found) -> bool:
    """Whether a file can be used, and its caller still has each of its texts."""
    seal = one.seal
    return seal is not None and _has_texts(db, seal.caller, seal.handles, seal.texts)


def _has_texts(db: Connection, caller: str, handles: Sequence[str], digests: Sequence[str]) -> bool:
    sql = "SELECT sha256 FROM contexts WHERE caller = ? AND handle = ?"
    rows = (db.execute(sql, [caller, handle]).fetchone() for handle in handles)
    return [row and row[0] for row in rows] == list(digests)


def _lost_folders(directory: Path) -> Iterator[Path]:
    """Yield the folders of databases that are gone."""
    for folder in _folders(directory):
        with suppress(OSError, UnicodeDecodeError):
            if not Path((folder / _OWNER).read_text("utf-8")).exists():
                yield folder


def _delete_all(folder: Path) -> int:
    """Delete the files of a database, and their folders where nothing else is in them."""
    paths = [path for one in _folders(folder) for path in one.glob("*")]
    deleted = sum(_delete(path) for path in paths if path.suffix in (SUFFIX, DRAFT_SUFFIX))
    with suppress(OSError):
        for one in _folders(folder):
            one.rmdir()
        (folder / _OWNER).unlink()
        folder.rmdir()
    return deleted
