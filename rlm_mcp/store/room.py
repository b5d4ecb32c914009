"""Room on the disk, and who may take the last of it.

On a disk that is full to the last byte SQLite can change nothing, and so delete nothing either.
What can be had again stops early, so that runs can end and texts be deleted: texts that are sent
first, then what runs at work log.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rlm_mcp.errors import StoreFullError

TEXT_LEAVES_BYTES = 64_000_000
LOG_LEAVES_BYTES = 16_000_000
# What a text takes in the file over its own bytes.
SPREAD = 1.01


def require_room(path: Path, need_bytes: int, leave_bytes: int) -> None:
    """Refuse to write when too little room would be left; blocks.

    Args:
        path: the database.
        need_bytes: what is about to be written.
        leave_bytes: what must be free afterwards.

    Raises:
        StoreFullError: with what is free, and what is needed.
    """
    free = free_bytes(path)
    if free < need_bytes + leave_bytes:
        raise StoreFullError(
            f"The disk that holds {str(path)!r} has {_megabytes(free)} free; "
            f"{_megabytes(need_bytes)} are to be written, and {_megabytes(leave_bytes)} are kept "
            "so that runs can end and texts be deleted. Nothing was lost.",
            fix=f"Free {_megabytes(need_bytes + leave_bytes - free)} there, for instance with "
            "rlm_context_delete, or set RLM_MCP_DATA_DIR to a directory on a larger disk.",
        )


def disk_full(path: Path) -> StoreFullError:
    """Make the error for a disk on which nothing more could be written."""
    return StoreFullError(
        f"The disk that holds {str(path)!r} is full: {_megabytes(free_bytes(path))} are free. "
        "Nothing was lost.",
        fix=f"Free {_megabytes(TEXT_LEAVES_BYTES)} there, or set RLM_MCP_DATA_DIR to a directory "
        "on a disk with room.",
    )


def free_bytes(path: Path) -> int:
    """Bytes that may still be written to the disk of a file, or of its nearest directory."""
    place = next((one for one in (path, *path.parents) if one.exists()), path)
    return shutil.disk_usage(place).free


def _megabytes(size: int) -> str:
    return f"{-(-size // 100_000) / 10:g} MB"
