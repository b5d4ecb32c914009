"""Asks one engine the tasks, with a small model behind any OpenAI-compatible endpoint.

    uv run python bench/small_model/play.py --base-url http://127.0.0.1:8080/v1 --out results.jsonl

Starts no model itself: a llama.cpp server with Qwen2.5-Coder-1.5B-Instruct will do. Each try has
another seed for the task and temperature 0 for the model, so it can be repeated. What is in the
results already is not played again. `report.py` makes tables of them.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from engines import ENGINES, Played
from tasks import PARTS, Generator


def main() -> None:
    """Play what is not in the results yet."""
    options = _options()
    known = {(row["engine"], row["task"], row["seed"]) for row in _rows(options.out)}
    for part, generator, seed in _tries(options):
        if (options.engine, generator.__name__, seed) in known:
            continue
        row = _play(options, part, generator, seed)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{'right' if row['right'] else 'wrong'} {row['task']}:{seed} {row['seconds']} s, "
            f"{row['turns']} turns, {row['sub_calls']} sub-calls, {row['answer'][:80]!r} for "
            f"{row['gold'][:60]!r}",
            flush=True,
        )


def _tries(options: argparse.Namespace) -> Iterator[tuple[str, Generator, int]]:
    for seed in range(options.first_seed, options.first_seed + options.tries):
        for part in options.parts:
            for generator in PARTS[part]:
                if not options.tasks or generator.__name__ in options.tasks:
                    yield part, generator, seed


def _play(
    options: argparse.Namespace, part: str, generator: Generator, seed: int
) -> dict[str, object]:
    task = generator(seed)
    began = time.monotonic()
    try:
        played = ENGINES[options.engine](
            options.base_url, options.model, task.question, task.context
        )
    except Exception:  # noqa: BLE001  # an engine that raises has not answered; what it raised is kept
        played = Played(status=traceback.format_exc(limit=-1))
    return {
        "engine": options.engine,
        "part": part,
        "task": generator.__name__,
        "seed": seed,
        "right": bool(task.check(played.answer)),
        "gold": task.gold,
        "seconds": round(time.monotonic() - began),
        **vars(played),
    }


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", required=True, help="of the endpoint, with its /v1")
    parser.add_argument("--model", default="local", help="name that the endpoint knows it by")
    parser.add_argument("--engine", choices=list(ENGINES), default="rlm_mcp")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--tasks", nargs="+", default=[], help="only these of the parts")
    parser.add_argument("--tries", type=int, default=1, help="seeds to play")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="results are added to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
