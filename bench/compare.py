"""Measures rlm-mcp beside bare clients, the bare MCP SDK, replm and rlms; prints tables.

    uv run python bench/compare.py                    # everything, about four minutes
    uv run python bench/compare.py iteration sub-calls --repeat 15

Repetitions are interleaved (A B C, A B C), so that a noisy machine is noisy for all. `uv` makes
environments for replm and rlms, with the same Python and client libraries.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Generator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import process_sections
import sections
from subjects import Place, open_model, open_subjects
from tables import Table

SECTIONS = ("iteration", "first-call", "sub-calls", "batch", "memory", "cold-start")


def main() -> None:
    """Measure the sections that were asked for."""
    options = _options()
    began = time.monotonic()
    print(f"`{' '.join(['python bench/compare.py', *options.sections])}`")
    print(f"on {_machine()}\n")
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as name,
        open_model() as base_url,
    ):
        place = Place(base_url, options.uv, Path(name))
        for table in _tables(options.sections or SECTIONS, place, options):
            print(table, flush=True)
    print(f"Measured in {time.monotonic() - began:.0f} s.")


def _tables(wanted: Sequence[str], place: Place, options: argparse.Namespace) -> Generator[Table]:
    repeat, sizes = options.repeat, options.sizes
    of_runs = {
        "iteration": partial(sections.iteration, repeat=repeat or 5),
        "first-call": partial(sections.first_call, repeat=repeat or 3, sizes=[1, *sizes]),
        "sub-calls": partial(sections.sub_calls, repeat=repeat or 5),
    }
    of_processes = {
        "batch": partial(process_sections.batch, sizes=options.batches),
        "memory": partial(process_sections.memory, sizes=sizes),
        "cold-start": partial(process_sections.cold_start, repeat=repeat or 20),
    }
    if not of_runs.keys().isdisjoint(wanted):
        with open_subjects(place) as subjects:
            for name, measure in of_runs.items():
                if name in wanted:
                    yield from measure(subjects)
    yield from (measure(place) for name, measure in of_processes.items() if name in wanted)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument(
        "--repeat", type=int, default=0, help="repetitions; each section has its own"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500], help="texts, in MB")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1000, 10_000, 40_000], help="sub-calls"
    )
    parser.add_argument("--uv", default=shutil.which("uv") or "uv", help="where uv is")
    parser.add_argument("--directory", help="for files and databases (about 2 GB); default: temp")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {sorted(unknown)!r}; there are {', '.join(SECTIONS)}")
    return options


def _machine() -> str:
    python, client = platform.python_version(), version("openai")
    return f"{os.cpu_count()} cores, {platform.system()}, Python {python}, openai {client}"


if __name__ == "__main__":
    main()
