"""A laid-out text as a file that REPLs map: written as a draft, checked, then renamed.

A file is what a REPL maps (`sandbox/layout.py`), followed by a seal: what it holds, for whom, and
how to tell that it is still the file that was checked. A file never changes once it has its name:
it is replaced or deleted as a whole, so that whoever maps it keeps what they map.

All of the text is compared with its SHA-256 before the file gets its name, and never again: that
would cost as much as reading it from the database. Instead the seal names the file's inode, its
time of change, its size, and the boot of the machine. Within one boot, a file whose bytes were
written whole and not changed since is what was checked, since all that read it read the same pages
of memory. What a loss of power left on the disk is not: so files of an earlier boot are not used,
and nothing needs to wait for the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_mcp.sandbox.layout import TEXT_START, Layout
from rlm_mcp.store.contexts.chunking import digest_of
from rlm_mcp.store.contexts.reading import document_rows, text_of

if TYPE_CHECKING:
    from rlm_mcp.store.contexts.reading import StoredSource

if sys.platform != "win32":  # there are no such files there
    import fcntl

SUFFIX = ".text"
DRAFT_SUFFIX = ".part"
_MAGIC = b"rlm-text"
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
_FOOT_BYTES = _DIGEST_BYTES + _LENGTH_BYTES + len(_MAGIC)
_MAX_SEAL_BYTES = 64 << 20  # of a text of a million contexts
_PIECE_BYTES = 1 << 20
_YOUNG_SECONDS = 60.0  # its process may be about to lock it
_OLD_SECONDS = 86_400.0  # where files cannot be locked
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Seal:
    """The end of a file.

    `texts` are the SHA-256 of the contexts that it holds, by `handles`; `key` is its source's.
    """

    key: str
    caller: str
    handles: tuple[str, ...]
    texts: tuple[str, ...]
    layout: Layout
    boot: str
    inode: int
    changed_ns: int

    def to_bytes(self) -> bytes:
        """Encode, so that the end of a file tells where its seal begins."""
        body = json.dumps(asdict(self)).encode()
        return b"".join(
            (body, hashlib.sha256(body).digest(), len(body).to_bytes(_LENGTH_BYTES), _MAGIC)
        )


def read_seal(descriptor: int) -> Seal | None:
    """Return the seal of a file that is whole and as it was when it was checked; else None."""
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    found = os.fstat(descriptor)
    if not _is_ours(found) or found.st_size <= _FOOT_BYTES:
        return None
    foot = os.pread(descriptor, _FOOT_BYTES, found.st_size - _FOOT_BYTES)
    size = int.from_bytes(foot[_DIGEST_BYTES : -len(_MAGIC)])
    start = found.st_size - _FOOT_BYTES - size
    if not foot.endswith(_MAGIC) or size > _MAX_SEAL_BYTES or start <= 0:
        return None
    body = os.pread(descriptor, size, start)
    if hashlib.sha256(body).digest() != foot[:_DIGEST_BYTES]:
        return None
    seal = _decoded(body)
    is_same = (
        seal is not None
        and seal.layout.file_bytes == start
        and (seal.inode, seal.changed_ns) == (found.st_ino, found.st_mtime_ns)
        and seal.boot == boot_id()
    )
    return seal if is_same else None


def _decoded(body: bytes) -> Seal | None:
    values: dict[str, Any] = json.loads(body)
    try:
        values["layout"] = Layout(**values["layout"])
        values |= {name: tuple(values[name]) for name in ("handles", "texts")}
        return Seal(**values)
    except (KeyError, TypeError):  # another version of this package wrote it
        return None


def _is_ours(found: os.stat_result) -> bool:
    """Whether only this user may read a file, and nobody may write it."""
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    is_file = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o400
    return is_file and found.st_uid == os.geteuid()


def open_file(path: Path) -> int:
    """Open a file to read it.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    # Looking at a file does not count as use: its time of use is set where it is used.
    unnoticed = getattr(os, "O_NOATIME", 0)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | unnoticed)


@cache
def boot_id() -> str:
    """Return what tells this run of the machine from others; empty where it does not say."""
    with suppress(OSError):
        return _BOOT_ID.read_text("ascii").strip()
    return ""


class Draft:
    """A file that a text is being written into; nobody else finds it. Its methods block."""

    def __init__(self, folder: Path, source: StoredSource) -> None:
        self.source = source
        self.path = folder / f"{secrets.token_hex(8)}{DRAFT_SUFFIX}"
        self.descriptor = _create(self.path)

    def reader(self) -> int:
        """Return a descriptor by which nothing can be written; it stays when the draft is gone."""
        return open_file(self.path)

    def is_right(self, layout: Layout, check: Callable[[], None]) -> bool:
        """Compare what was written with the SHA-256 of each context.

        Args:
            layout: of what was written.
            check: called between pieces; what it raises ends the work.

        Raises:
            StoreError: a context was deleted meanwhile.
        """
        source, first, start = self.source, 0, TEXT_START
        with source.database.open_reader() as db:
            for handle, sha256, count in zip(
                source.handles, source.digests, source.counts, strict=True
            ):
                text_of(db, source.caller, handle)
                rows = document_rows(db, source.caller, handle)
                named = ((name, size) for _, name, size, *_ in rows)
                if digest_of(_pieces(self.descriptor, start, check), named) != sha256:
                    return False
                start += sum(source.byte_lengths[first : first + count])
                first += count
        return start == TEXT_START + layout.text_bytes

    def publish(self, path: Path, layout: Layout) -> None:
        """Seal the file and give it its name.

        Raises:
            OSError: the disk is full, or the draft is gone.
        """
        source, found = self.source, os.fstat(self.descriptor)
        changed = time.time_ns()
        seal = Seal(
            source.key,
            source.caller,
            tuple(source.handles),
            tuple(source.digests),
            layout,
            boot_id(),
            found.st_ino,
            changed,
        )
        _write_at(self.descriptor, seal.to_bytes(), layout.file_bytes)
        os.utime(self.descriptor, ns=(changed, changed))
        self.path.rename(path)

    def close(self) -> None:
        """Delete the draft, unless it has got its name, and let go of it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _create(path: Path) -> int:
    """Create a file that only this user may open, and lock it for as long as it is open."""
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with suppress(OSError):  # where it cannot be locked, a left draft is told by its age
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _pieces(descriptor: int, start: int, check: Callable[[], None]) -> Iterator[bytes]:
    """Yield a file from an offset on; its pages are not mapped, and count for no process."""
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    while piece := os.pread(descriptor, _PIECE_BYTES, start):
        check()
        yield piece
        start += len(piece)


def _write_at(descriptor: int, data: bytes, place: int) -> None:
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def is_left(path: Path) -> bool:
    """Whether a draft was left by a process that is gone."""
    assert sys.platform != "win32"  # noqa: S101  # there are no such files there
    try:
        age = time.time() - path.stat().st_mtime
        descriptor = open_file(path)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        is_held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        return not is_held and age > _OLD_SECONDS
    finally:
        os.close(descriptor)
    return age > _YOUNG_SECONDS
