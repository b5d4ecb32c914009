"""The work of `rlm-mcp batch`."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from rlm_mcp.cli.commands.options import STANDARD_INPUT, Launch
from rlm_mcp.cli.output import say
from rlm_mcp.cli.result_file import open_result_file
from rlm_mcp.cli.sources import add_source, read_standard_input
from rlm_mcp.cli.terminal import messages
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.server.sendable import sendable
from rlm_mcp.service.batch.batch import BatchOptions
from rlm_mcp.service.batch.lines import BadLine, BatchLine, read_lines
from rlm_mcp.service.batch.opening import OpenBatch, open_batch
from rlm_mcp.service.batch.texts import AddText
from rlm_mcp.service.contexts.added import Added
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.service import Service

Write = Callable[[str], Awaitable[None]]
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


async def run_batch(launch: Launch, given: Mapping[str, Any]) -> bool:
    """Ask all questions; return whether each of them has an answer.

    Raises:
        InvalidInputError: a file cannot be read or written, a text cannot be stored, no line can
            be asked, or with `strict` a line is bad.
    """
    out = given["out"]
    _refuse_stdout(out)
    async with open_result_file(out) as write:
        lines, bad = await _read(given["questions"], given["score"])
        _name_bad(bad, is_strict=given["strict"])
        _refuse_nothing(lines, given["questions"])
        _refuse_idle_judge(lines, given)
        own = [await _pattern_of(given[name]) for name in ("questions", "out")]
        adding = partial(_all_but, own)
        async with open_batch(
            given["texts"], settings=launch.settings, options=_options(given), adding=adding
        ) as batch:
            answered = await _write(batch, lines, write)
    summary = batch.report()
    if given["has_report"]:
        say(json.dumps(summary, ensure_ascii=False, indent=2))
    if summary["unasked"]:
        say(f"{summary['unasked']} not asked: --max-usd {given['max_usd']:g} is spent.", err=True)
    say(f"{answered} of {summary['questions']} questions answered.", err=True)
    return not bad and answered == summary["questions"]


def _refuse_stdout(out: Path) -> None:
    if str(out) == "-":
        raise InvalidInputError(
            "--out '-' is not a file.", fix="Name one; /dev/stdout prints the results."
        )


async def _read(path: Path, score: str) -> tuple[list[BatchLine], list[BadLine]]:
    try:
        data = await (_all_of_stdin() if _is_stdin(path) else anyio.Path(path).read_bytes())
    except OSError as error:
        raise InvalidInputError(
            f"The file {str(path)!r} cannot be read: {error.strerror}.",
            fix="Give a file in UTF-8 with one JSON object per line.",
        ) from error
    if data.startswith(_UTF16):
        raise InvalidInputError(
            f"The file {str(path)!r} is in UTF-16.", fix="Save it in UTF-8, and try again."
        )
    # JSON may hold other ends of lines as they are.
    return read_lines(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), score)


def _is_stdin(path: Path) -> bool:
    return str(path) in STANDARD_INPUT


async def _all_of_stdin() -> bytes:
    return b"".join([part async for part in read_standard_input()])


def _name_bad(bad: Sequence[BadLine], *, is_strict: bool) -> None:
    for line in bad:
        say(f"line {line.number}: {line.reason}", err=True)
    if bad and is_strict:
        raise InvalidInputError(
            f"{len(bad)} of the lines are bad; nothing was asked.",
            fix="Correct them, or leave --strict out to skip them.",
        )


def _refuse_nothing(lines: Sequence[BatchLine], path: Path) -> None:
    if not lines:
        raise InvalidInputError(
            f"The file {str(path)!r} has no line that can be asked.",
            fix='Write one JSON object per line, such as {"id": "a", "question": "Who is it?"}.',
        )


def _refuse_idle_judge(lines: Sequence[BatchLine], given: Mapping[str, Any]) -> None:
    is_used = "judge" in {given["score"], *(line.score for line in lines)}
    if given["judge_model"] and not is_used:
        raise InvalidInputError(
            "--judge-model has no effect: nothing is compared by 'judge'.",
            fix="Add --score judge, or leave --judge-model out.",
        )


def _options(given: Mapping[str, Any]) -> BatchOptions:
    return BatchOptions(
        name="stdin" if _is_stdin(given["questions"]) else given["questions"].name,
        at_once=given["at_once"],
        retries_failed=given["retry"] == "failed",
        max_usd=given["max_usd"],
        score=given["score"],
        judge_model=given["judge_model"],
    )


def _all_but(own: Sequence[str], service: Service) -> AddText:
    """Store texts with a progress bar, and of a directory none of the batch's own files.

    They hold expected answers. And with its results among the texts, a batch that is started again
    would ask all of it anew.
    """

    async def add(text: NewText) -> Added:
        return await add_source(service, replace(text, exclude=tuple(own)))

    return add


async def _pattern_of(path: Path) -> str:
    """Return the pattern that one file alone fits."""
    name = re.sub(r"([\\*?\[\]! #])", r"\\\1", path.name)
    return str(await anyio.Path(path.parent).resolve() / name)


async def _write(batch: OpenBatch, lines: Sequence[BatchLine], write: Write) -> int:
    """Write each result as it comes, and show how many there are; return how many are answers."""
    written = answers = 0
    with messages().status(f"0 of {len(lines)}") as shown:
        async with aclosing(batch.run(lines)) as answered:
            async for result in answered:
                await write(json.dumps(sendable(result), ensure_ascii=False) + "\n")
                written += 1
                answers += result["answer"] is not None
                shown.update(f"{written} of {len(lines)}")
    return answers
