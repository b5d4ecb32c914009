"""What is measured of runs: an iteration, the way to the first model call, a batch of sub-calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from subjects import Subjects
from tables import Samples, Table

TURNS = 20
CALLS = 200
AT_ONCE = 32
CALL_SECONDS = 0.05
OURS_DIRECT = "rlm-mcp, library, `direct_http`"
OURS, SERVED, REPLM, RLMS = "rlm-mcp, library", "rlm-mcp, server", "replm 0.1.0", "rlms 0.1.3"
BARE, FLOOR = "bare openai client", "bare aiohttp loop"
REPLM_CHILD = f"{REPLM}, `subprocess`"
REPLM_LIMITED = f"replm, client of {AT_ONCE} connections"


def iteration(subjects: Subjects, repeat: int) -> Generator[Table]:
    """Measure a turn of the root model that runs a trivial cell, at zero latency."""
    wall, cpu = Samples(), Samples()
    subjects.prepare(1, "iteration")
    model = f"turns:{TURNS}"
    ways = {
        FLOOR: lambda: subjects.ours.ask("sequence", way="aiohttp", calls=TURNS),
        BARE: lambda: subjects.ours.ask("sequence", way="openai", calls=TURNS),
        OURS: lambda: subjects.ours.ask("run", model=model),
        OURS_DIRECT: lambda: subjects.ours.ask("run", model=model, direct=True),
        SERVED: lambda: subjects.served.ask("run", model=model),
        REPLM: lambda: subjects.replm.ask("run", model=model),
        REPLM_CHILD: lambda: subjects.replm.ask("run", model=model, sandbox_mode="subprocess"),
        RLMS: lambda: subjects.rlms.ask("run", model=model),
    }
    for number in range(repeat + 1):
        for name, work in ways.items():
            told = work()
            arrived = subjects.report()["root"]
            if number:  # the first is to warm up
                wall.add(name, *(1000 * (b - a) for a, b in itertools.pairwise(arrived)))
                cpu.add(name, 1000 * told["cpu"] / TURNS)
    floor, theirs = wall.median(FLOOR), wall.median(REPLM)
    best = wall.tenth(FLOOR)
    rows = [
        [
            name,
            f"{wall.median(name):.2f}",
            wall.spread(name),
            f"{wall.median(name) - floor:.2f}",
            f"{wall.tenth(name) - best:.2f}",
            f"{wall.median(name) / theirs:.2f}",
            f"{cpu.median(name):.1f}",
        ]
        for name in ways
    ]
    header = [
        "", "ms an iteration", "middle half", "above the bare loop", "its fastest tenth",
        "to replm", "host CPU ms",
    ]  # fmt: skip
    note = (
        f"Between two requests as the model sees them; {repeat} runs of {TURNS} turns. The CPU is "
        "that of the host's process (the server's includes the client), start and end included. "
        "By default replm runs model code in its own process; `subprocess` is its other mode."
    )
    yield Table("Overhead of an iteration", header, rows, note)


def first_call(subjects: Subjects, repeat: int, sizes: list[int]) -> Generator[Table]:
    """Measure from the question to the first request that arrives at the model."""
    seconds = Samples()
    ways = {
        SERVED: lambda: subjects.served.ask("run", model="once"),
        f"{SERVED}, again": lambda: subjects.served.ask("run", model="once"),
        OURS: lambda: subjects.ours.ask("run", model="once"),
        REPLM_CHILD: lambda: subjects.replm.ask("run", model="once", sandbox_mode="subprocess"),
        REPLM: lambda: subjects.replm.ask("run", model="once"),
    }
    for size, number in itertools.product(sizes, range(repeat)):
        subjects.prepare(size, f"first {number}")
        for name, work in ways.items():
            started = work()["started"]
            seconds.add(f"{name} {size}", 1000 * (subjects.report()["root"][0] - started))
    rows: list[list[str]] = []
    for name in ways:
        figures = [seconds.median(f"{name} {size}") for size in sizes]
        theirs = [seconds.median(f"{REPLM_CHILD} {size}") for size in sizes]
        pairs = zip(figures, theirs, strict=True)
        rows.append([name, *(f"{ours:.0f} ({ours / other:.2f})" for ours, other in pairs)])
    header = ["ms (to replm in a child)", *(f"{size} MB" for size in sizes)]
    note = (
        f"Medians of {repeat}. The server reads a stored text, which nobody has asked about before "
        "(`again`: a second question on it); the libraries are given a `str`. By default replm "
        "runs model code in its own process, so nothing starts and no text moves."
    )
    yield Table("From the question to the first model call", header, rows, note)


def sub_calls(subjects: Subjects, repeat: int) -> Generator[Table]:
    """Measure one `llm_query_batch`, from the reply that asks for it to the next turn."""
    subjects.prepare(1, "sub-calls")
    for at_once in (AT_ONCE, CALLS):
        yield _sub_calls(subjects, repeat, at_once)


def _sub_calls(subjects: Subjects, repeat: int, limit: int) -> Table:
    wall, cpu, at_once = Samples(), Samples(), Samples()
    ways = _ways_of_sub_calls(subjects, limit)
    for number in range(repeat + 1):
        for name, work in ways.items():
            told, report = work(), subjects.report()
            assert len(report["sub"]) == CALLS, (name, len(report["sub"]))
            if number:
                root = report["root"]
                wall.add(name, told["seconds"] if "seconds" in told else root[1] - root[0])
                cpu.add(name, 1000 * told["cpu"] / CALLS)
                at_once.add(name, report["at_once"])
    floor, spent = wall.median(FLOOR), cpu.median(FLOOR)
    rows = [
        [
            name,
            f"{wall.median(name):.2f}",
            f"{wall.median(name) / floor:.2f}",
            f"{at_once.median(name):.0f}",
            f"{cpu.median(name):.2f}",
            f"{cpu.median(name) / spent:.1f}",
        ]
        for name in ways
    ]
    header = ["", "s", "to the bare loop", "at once", "host CPU ms a call", "to the bare loop"]
    ideal = -(-CALLS // limit) * CALL_SECONDS
    note = (
        f"Medians of {repeat}. {limit} at once cannot be faster than {ideal:.2f} s. The bare loop "
        f"and `AsyncOpenAI` work behind a semaphore of {limit}; replm starts all at once, rlms 16."
    )
    title = f"{CALLS} sub-calls of {1000 * CALL_SECONDS:.0f} ms, {limit} at once"
    return Table(title, header, rows, note)


def _ways_of_sub_calls(subjects: Subjects, limit: int) -> dict[str, Callable[[], Any]]:
    model = f"batch:{CALLS}"
    served = subjects.served if limit == AT_ONCE else subjects.served_widely
    bare = partial(subjects.ours.ask, "gather", calls=CALLS, limit=limit)
    ways = {
        FLOOR: partial(bare, way="aiohttp"),
        BARE: partial(bare, way="openai"),
        OURS: lambda: subjects.ours.ask("run", model=model, max_concurrent_calls=limit),
        OURS_DIRECT: lambda: subjects.ours.ask(
            "run", model=model, max_concurrent_calls=limit, direct=True
        ),
        SERVED: lambda: served.ask("run", model=model),
        REPLM: lambda: subjects.replm.ask("run", model=model),
        RLMS: lambda: subjects.rlms.ask("run", model=model),
    }
    if limit < CALLS:
        ways[REPLM_LIMITED] = lambda: subjects.replm.ask("run", model=model, connections=limit)
    return ways
