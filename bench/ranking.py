"""What searching by words costs: `python bench/ranking.py [MB]`, 100 MB of English by default.

Words are made up and as frequent as those of a language are (Zipf). Queries are ten words each,
rarer from query to query.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread

from rlm_mcp.store.contexts.contexts import Contexts
from rlm_mcp.store.database import DATABASE_NAME, open_database
from rlm_mcp.store.index.indexes import TextIndexes

WORDS = 50_000
ROUNDS = 5
RANKS = (20, 100, 300, 1000, 3000, 20_000)


def print_nothing(_done_bytes: int) -> None:
    pass


def vocabulary(dice: random.Random) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(dice.choices(letters, k=dice.randint(2, 11))) for _ in range(WORDS)]


def lines(words: list[str], dice: random.Random, size: int) -> Iterator[bytes]:
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(WORDS)))
    while size > 0:
        drawn = dice.choices(words, cum_weights=weights, k=120_000)
        block = "\n".join(" ".join(drawn[at : at + 12]) for at in range(0, len(drawn), 12))
        yield (block + "\n").encode()
        size -= len(block)


async def measure(directory: Path, size: int) -> None:
    dice = random.Random(0)
    words = vocabulary(dice)
    async with open_database(directory / DATABASE_NAME) as database:
        contexts = Contexts(database)
        async with contexts.open_upload("bench") as upload:
            for piece in lines(words, dice, size):
                await upload.write(piece)
            record = (await upload.seal()).record
        indexes = TextIndexes(database, "")
        start, work = time.perf_counter(), time.process_time()
        await anyio.to_thread.run_sync(indexes.build, record, print_nothing)
        seconds, work = time.perf_counter() - start, time.process_time() - work
        path = indexes.path(record)
        print(
            f"text {record.bytes / 1e6:.0f} MB, indexed in {seconds:.1f} s, {work:.1f} s of a core"
        )
        print(f"index {(await anyio.Path(path).stat()).st_size / 1e6:.0f} MB")
        for rank in RANKS:
            query = " ".join(words[rank : rank + 10])
            times: list[float] = []
            work = time.process_time()
            for _ in range(ROUNDS):
                start = time.perf_counter()
                await anyio.to_thread.run_sync(indexes.search, record, query, 0, 50)
                times.append(time.perf_counter() - start)
            work = (time.process_time() - work) / ROUNDS
            median = statistics.median(times)
            print(f"rank {rank:6}: {median * 1000:4.0f} ms, {work * 1000:4.0f} ms of a core")


def main() -> None:
    size = int(sys.argv[1]) * 1_000_000 if len(sys.argv) > 1 else 100_000_000
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(measure, Path(directory), size)


if __name__ == "__main__":
    main()
