"""Plays families of long texts of 2^13 to 2^23 characters, and scores the answers exactly.

    uv run python bench/long_context/play.py            # the oracle, all engines, all sizes
    uv run python bench/long_context/play.py --base-url http://127.0.0.1:8080/v1 --model NAME

Without an endpoint, oracles answer in the model's place: what is wrong then was lost by the engine.
What is in the results already is not played again. `--report docs/long-context.md` then renews the
tables, figures and plot of that document; `report.py` does it alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import report
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from families import FAMILIES, SIZES, make_task
from oracle_desk import DIALECTS, Desk
from player import ENGINES

from rlm_mcp.testing.scripted_model import open_scripted_model

HERE = Path(__file__).parent
PEERS = {"replm": "replm==0.1.0", "rlms": "rlms==0.1.3"}
# What starting an engine and reading the text may take beside the time for the answer.
STARTING_SECONDS = 180

Row = dict[str, Any]


async def main() -> None:
    """Play what is not in the results yet, and print a line for each."""
    options = _options()
    async with _endpoint(options) as base_url:
        options.base_url = base_url
        players = {engine: Player(engine, options) for engine in options.engines}
        try:
            await _play_all(players, options)
        finally:
            for player in players.values():
                await player.stop()
    if options.report:
        rows = [row for row in _rows(options.out) if row["model"] == options.model]
        report.write(report.figures(rows, tuple(options.prices)), options.report)


@asynccontextmanager
async def _endpoint(options: argparse.Namespace) -> AsyncGenerator[str]:
    if options.base_url:
        yield options.base_url
        return
    async with open_scripted_model(Desk().answer, keep=1) as model:
        yield model.base_url


async def _play_all(players: dict[str, Player], options: argparse.Namespace) -> None:
    known = {(row["engine"], row["model"], row["task"]) for row in _rows(options.out)}
    with tempfile.TemporaryDirectory() as directory:
        for family, size, seed in _tasks(options):
            for engine, player in players.items():
                if (engine, options.model, f"{family}.{size}.{seed}") in known:
                    continue
                row = await _play(player, family, size, seed, Path(directory) / "task.json")
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                _print(row)


def _tasks(options: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    for size in options.sizes:
        for seed in options.seeds:
            for family in options.families:
                yield family, size, seed


async def _play(player: Player, family: str, size: int, seed: int, file: Path) -> Row:
    task = await anyio.to_thread.run_sync(make_task, family, size, seed)
    root, sub = player.models(task.name)
    asked = {"question": task.question, "context": task.context, "root": root, "sub": sub}
    await anyio.Path(file).write_text(json.dumps(asked), encoding="utf-8")
    played = await player.play(file)
    answer = played.get("answer")
    score = 0.0 if answer is None else task.score(str(answer))
    return {
        "engine": player.engine,
        "model": player.options.model,
        "task": task.name,
        "family": family,
        "size": size,
        "seed": seed,
        "score": round(score, 4),
        **played,
        "answer": None if answer is None else str(answer)[:200],
        "gold": task.gold[:200],
    }


class Player:
    """One engine in a process of its own, which is started anew where it hangs or dies."""

    def __init__(self, engine: str, options: argparse.Namespace) -> None:
        self.engine = engine
        self.options = options
        self._process: Process | None = None
        self._lines: TextReceiveStream | None = None

    def models(self, task: str) -> tuple[str, str]:
        """Name the models of a task; an oracle is told by its name."""
        if self.options.model == "oracle":
            return f"{task}.{self.engine}.root", f"{task}.{self.engine}.sub"
        return self.options.model, self.options.sub_model or self.options.model

    async def play(self, file: Path) -> Row:
        """Have one task answered."""
        try:
            with anyio.fail_after(self.options.seconds + STARTING_SECONDS):
                return json.loads(await self._reply(file))
        except TimeoutError:
            await self.stop()
            return {"error": f"no answer in {self.options.seconds} s", "seconds": None}
        except anyio.EndOfStream:
            await self.stop()
            return {"error": "the process of the engine ended", "seconds": None}

    async def _reply(self, file: Path) -> str:
        if self._process is None:
            self._process = await anyio.open_process(
                self._command(), stderr=subprocess.DEVNULL, start_new_session=True
            )
            assert self._process.stdout is not None
            self._lines = TextReceiveStream(self._process.stdout)
        assert self._process.stdin is not None
        assert self._lines is not None
        await self._process.stdin.send(f"{file}\n".encode())
        reply = ""
        while not reply.endswith("\n"):
            reply += await self._lines.receive()
        return reply

    async def stop(self) -> None:
        """End the process, and what `uv` started for it."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.aclose()
        self._process = self._lines = None

    def _command(self) -> list[str]:
        given = ("base_url", "seconds", "window_chars", "api_key_env", "variant")
        options = {name: getattr(self.options, name) for name in given}
        player = [str(HERE / "player.py"), self.engine, json.dumps(options)]
        if self.engine not in PEERS:
            return [sys.executable, *player]
        alone = ["run", "--quiet", "--isolated", "--no-project", "--with", PEERS[self.engine]]
        return [self.options.uv, *alone, "--python", sys.executable, "python", *player]


def _rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _print(row: Row) -> None:
    said = row.get("error") or f"{row['answer'] or ''!r}"
    print(f"{row['engine']} {row['task']} {row['score']:.2f} {row['seconds']} s: {said[:90]}")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", help="of an endpoint; without it, the oracles answer")
    parser.add_argument("--model", default="", help="name that the endpoint knows it by")
    parser.add_argument("--sub-model", default="", help="for sub-calls; default: the same")
    parser.add_argument("--api-key-env", default="OPENAI_API_KEY", help="variable with the key")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), help="default: all")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="powers of two")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=600, help="for one answer")
    parser.add_argument("--window-chars", type=int, default=400_000, help="of the bare model")
    parser.add_argument("--variant", default="", help="prompt variant, such as small_context")
    parser.add_argument("--uv", default=shutil.which("uv") or "uv", help="where uv is")
    parser.add_argument("--out", type=Path, help="results are added to this file")
    parser.add_argument("--report", type=Path, help="document that shows the results")
    parser.add_argument(
        "--prices", nargs=2, type=float, default=(0, 0), metavar=("IN", "OUT"),
        help="USD for a million tokens, for the report",
    )  # fmt: skip
    options = parser.parse_args()
    return _completed(parser, options)


def _completed(parser: argparse.ArgumentParser, options: argparse.Namespace) -> argparse.Namespace:
    if bool(options.base_url) != bool(options.model):
        parser.error("give both --base-url and --model, or neither for the oracles")
    possible: Sequence[str] = list(ENGINES) if options.base_url else list(DIALECTS)
    options.model = options.model or "oracle"
    options.engines = options.engines or possible
    if unknown := set(options.engines) - set(possible):
        parser.error(f"{', '.join(sorted(unknown))} needs an endpoint: give --base-url and --model")
    options.out = options.out or Path(f"long-context-{options.model.replace('/', '-')}.jsonl")
    return options


if __name__ == "__main__":
    anyio.run(main)
