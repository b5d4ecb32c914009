"""Giving back to the disk what deletes have freed, so that it can be read in the file no more."""

from __future__ import annotations

from sqlite3 import Connection

from rlm_mcp.store.database import Database

# Pages are moved from the end of the file into the gaps; one step must stay short.
_PAGES_A_STEP = 256


async def shrink(database: Database) -> int:
    """Cut free pages off the file, in steps; return how many there were.

    What was deleted is gone from the file then; in the log beside it, it is until that is merged.

    Raises:
        StoreError: the database could not be written; the rest is cut off the next time.
    """
    before = left = await database.read(_free_pages)
    while left:
        rest = await database.write(_cut_some)
        if rest >= left:
            break  # the file was made without the means to shrink, or others free as fast
        left = rest
    return before - left


def _free_pages(db: Connection) -> int:
    return db.execute("PRAGMA freelist_count").fetchone()[0]


def _cut_some(db: Connection) -> int:
    db.execute(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})").fetchall()
    return _free_pages(db)
