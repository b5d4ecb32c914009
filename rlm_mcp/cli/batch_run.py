"""The work of `rlm-mcp batch`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.output import say
from rlm_mcp.cli.sources import add_source
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


async def run_batch(launch: Launch, given: Mapping[str, Any]) -> bool:
    """Ask all questions; return whether each of them has an answer.

    Raises:
        InvalidInputError: a file cannot be read or written, a text cannot be stored, or with
            `strict` a line is bad.
    """
    await _check_out(given["out"])
    lines, bad = await _read(given["questions"])
    _name_bad(bad, is_strict=given["strict"])
    _refuse_idle_judge(lines, given)
    own = [await _pattern_of(given[name]) for name in ("questions", "out")]
    adding = partial(_all_but, own)
    async with open_batch(
        given["texts"], settings=launch.settings, options=_options(given), adding=adding
    ) as batch:
        answered = await _write(batch, lines, given["out"])
    summary = batch.report()
    if given["has_report"]:
        say(json.dumps(summary, ensure_ascii=False, indent=2))
    say(f"{answered} of {summary['questions']} questions answered.", err=True)
    return not bad and answered == summary["questions"]


async def _check_out(path: Path) -> None:
    try:
        await (await anyio.open_file(path, "a", encoding="utf-8")).aclose()
    except OSError as error:
        raise InvalidInputError(
            f"The file {str(path)!r} cannot be written: {error.strerror}.",
            fix="Name another file with --out.",
        ) from error


async def _read(path: Path) -> tuple[list[BatchLine], list[BadLine]]:
    try:
        text = await anyio.Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"The file {str(path)!r} cannot be read: {error}.",
            fix="Give a file in UTF-8 with one JSON object per line.",
        ) from error
    return read_lines(text.split("\n"))  # JSON may hold other ends of lines as they are


def _name_bad(bad: Sequence[BadLine], *, is_strict: bool) -> None:
    for line in bad:
        say(f"line {line.number}: {line.reason}", err=True)
    if bad and is_strict:
        raise InvalidInputError(
            f"{len(bad)} of the lines are bad; nothing was asked.",
            fix="Correct them, or leave --strict out to skip them.",
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
        name=given["questions"].name,
        at_once=given["at_once"],
        retries_failed=given["retry"] == "failed",
        max_usd=given["max_usd"],
        score=given["score"],
        judge_model=given["judge_model"],
    )


def _all_but(own: Sequence[str], service: Service) -> AddText:
    """Store texts with a progress bar, and of a directory none of the batch's own files.

    With its results among the texts, a batch that is started again would ask all of it anew.
    """

    async def add(text: NewText) -> Added:
        return await add_source(service, replace(text, exclude=tuple(own)))

    return add


async def _pattern_of(path: Path) -> str:
    """Return the pattern that one file alone fits."""
    name = re.sub(r"([\\*?\[\]! #])", r"\\\1", path.name)
    return str(await anyio.Path(path.parent).resolve() / name)


async def _write(batch: OpenBatch, lines: Sequence[BatchLine], out: Path) -> int:
    """Write each result as it comes, and show how many there are; return how many are answers."""
    written = answers = 0
    with messages().status(f"0 of {len(lines)}") as shown:
        async with (
            await anyio.open_file(out, "w", encoding="utf-8") as file,
            aclosing(batch.run(lines)) as answered,
        ):
            async for result in answered:
                await file.write(json.dumps(sendable(result), ensure_ascii=False) + "\n")
                await file.flush()
                written += 1
                answers += result["answer"] is not None
                shown.update(f"{written} of {len(lines)}")
    return answers
