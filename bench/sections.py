"""What is measured of runs: an iteration, the way to the first model call, a batch of sub-calls."""

from __future__ import annotations

import itertools

from subjects import Subjects
from tables import Samples, Table

TURNS = 20
CALLS = 200
AT_ONCE = 32
CALL_SECONDS = 0.05
OURS, SERVED, REPLM, BARE = "rlm-mcp, library", "rlm-mcp, server", "replm 0.1.0", "bare client"
REPLM_CHILD = f"{REPLM}, `subprocess`"
REPLM_LIMITED = f"replm, client of {AT_ONCE} connections"


def iteration(subjects: Subjects, repeat: int) -> Table:
    """Measure a turn of the root model that runs a trivial cell, at zero latency."""
    wall, cpu = Samples(), Samples()
    subjects.prepare(1, "iteration")
    model = f"turns:{TURNS}"
    ways = {
        BARE: lambda: subjects.ours.ask("sequence", calls=TURNS),
        OURS: lambda: subjects.ours.ask("run", model=model),
        SERVED: lambda: subjects.served.ask("run", model=model),
        REPLM: lambda: subjects.replm.ask("run", model=model),
        REPLM_CHILD: lambda: subjects.replm.ask("run", model=model, sandbox_mode="subprocess"),
    }
    for number in range(repeat + 1):
        for name, work in ways.items():
            told = work()
            arrived = subjects.report()["root"]
            if number:  # the first is to warm up
                wall.add(name, *(1000 * (b - a) for a, b in itertools.pairwise(arrived)))
                cpu.add(name, 1000 * told["cpu"] / TURNS)
    floor, theirs = wall.median(BARE), wall.median(REPLM)
    rows = [
        [
            name,
            f"{wall.median(name):.2f}",
            wall.spread(name),
            f"{wall.median(name) - floor:.2f}",
            f"{wall.median(name) / theirs:.2f}",
            f"{cpu.median(name):.1f}",
        ]
        for name in ways
    ]
    header = [
        "", "ms an iteration", "middle half", "above the bare call", "to replm", "host CPU ms",
    ]  # fmt: skip
    note = (
        f"Between two requests as the model sees them; {repeat} runs of {TURNS} turns. The CPU is "
        "that of the host's process (the server's includes the client), start and end included. "
        "By default replm runs model code in its own process; `subprocess` is its other mode."
    )
    return Table("Overhead of an iteration", header, rows, note)


def first_call(subjects: Subjects, repeat: int, sizes: list[int]) -> Table:
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
    return Table("From the question to the first model call", header, rows, note)


def sub_calls(subjects: Subjects, repeat: int) -> Table:
    """Measure one `llm_query_batch`, from the reply that asks for it to the next turn."""
    wall, cpu, at_once = Samples(), Samples(), Samples()
    subjects.prepare(1, "sub-calls")
    model = f"batch:{CALLS}"
    ways = {
        BARE: lambda: subjects.ours.ask("gather", calls=CALLS, limit=AT_ONCE),
        OURS: lambda: subjects.ours.ask("run", model=model),
        SERVED: lambda: subjects.served.ask("run", model=model),
        REPLM: lambda: subjects.replm.ask("run", model=model),
        REPLM_LIMITED: lambda: subjects.replm.ask("run", model=model, connections=AT_ONCE),
    }
    for number in range(repeat + 1):
        for name, work in ways.items():
            told, report = work(), subjects.report()
            assert len(report["sub"]) == CALLS, (name, len(report["sub"]))
            if number:
                root = report["root"]
                wall.add(name, told["seconds"] if name == BARE else root[1] - root[0])
                cpu.add(name, 1000 * told["cpu"] / CALLS)
                at_once.add(name, report["at_once"])
    floor = wall.median(BARE)
    rows = [
        [
            name,
            f"{wall.median(name):.2f}",
            f"{wall.median(name) / floor:.2f}",
            f"{at_once.median(name):.0f}",
            f"{cpu.median(name):.1f}",
        ]
        for name in ways
    ]
    header = ["", "s", "to the bare client", "at once", "host CPU ms a call"]
    ideal = -(-CALLS // AT_ONCE) * CALL_SECONDS
    note = (
        f"Medians of {repeat}. {AT_ONCE} at once cannot be faster than {ideal:.2f} s. The bare "
        f"client is `AsyncOpenAI` behind a semaphore of {AT_ONCE}; replm starts all at once."
    )
    title = f"{CALLS} sub-calls of {1000 * CALL_SECONDS:.0f} ms, {AT_ONCE} at once"
    return Table(title, header, rows, note)
