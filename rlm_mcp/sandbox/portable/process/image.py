"""The memory of a guest whose modules are loaded: written once, read into each new instance.

The file holds the pages that differ from a fresh instance of the same module, and where the stack
is. Each instance that starts then finds its modules imported. The file is trusted as compiled code
is: it lies in the same folder, which belongs to this user.
"""

from __future__ import annotations

import struct
from pathlib import Path

from rlm_mcp.sandbox.portable.process.instance import Instance

MAGIC = b"rlm-mcp guest 1\n"  # another number where the layout of the file changes
PAGE_BYTES = 1 << 12
GAP_PAGES = 2  # unchanged pages that are cheaper to read than to begin another run
_HEAD = struct.Struct("<QII")  # size of the memory, place of the stack, number of runs
_RUN = struct.Struct("<QQ")  # where a run begins, and how long it is


def changed_runs(before: bytes, after: bytes) -> list[tuple[int, int]]:
    """Find where `after` differs from `before`, which goes on with zeros: places and lengths."""
    padded = before + bytes(len(after) - len(before))
    runs: list[tuple[int, int]] = []
    for place in range(0, len(after), PAGE_BYTES):
        end = min(place + PAGE_BYTES, len(after))
        if after[place:end] == padded[place:end]:
            continue
        if runs and place - sum(runs[-1]) <= GAP_PAGES * PAGE_BYTES:
            place = runs.pop()[0]  # noqa: PLW2901  # the run goes on
        runs.append((place, end - place))
    return runs


def write_image(path: Path, instance: Instance, fresh: bytes) -> None:
    """Write what an instance's memory holds beside that of a `fresh` one."""
    memory = instance.memory.read(0, instance.memory.size)
    runs = changed_runs(fresh, memory)
    with path.open("wb") as file:
        file.write(MAGIC + _HEAD.pack(len(memory), instance.stack, len(runs)))
        file.writelines(_RUN.pack(*run) for run in runs)
        file.writelines(memory[place : place + length] for place, length in runs)


def read_image(path: Path, instance: Instance) -> None:
    """Put what was written into a fresh instance.

    Raises:
        ValueError: the file is damaged.
        GuestError: it needs more memory than there is.
    """
    with path.open("rb") as file:
        head = file.read(len(MAGIC) + _HEAD.size)
        if len(head) < len(MAGIC) + _HEAD.size or not head.startswith(MAGIC):
            raise _damaged(path)
        size, stack, count = _HEAD.unpack_from(head, len(MAGIC))
        table = file.read(count * _RUN.size)
        if len(table) < count * _RUN.size:
            raise _damaged(path)
        instance.grow_to(size)
        memory = instance.memory.view(0, size)
        for place, length in _RUN.iter_unpack(table):
            if file.readinto(memory[place : place + length]) != length:
                raise _damaged(path)
    instance.stack = stack


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{str(path)!r} is damaged: delete it, and start the server again")
