"""The work of `rlm-mcp batch`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio

from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.output import say
from rlm_mcp.cli.sources import add_source
from rlm_mcp.cli.terminal import messages
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.batch.batch import Batch, BatchOptions
from rlm_mcp.service.batch.lines import BadLine, BatchLine, read_lines
from rlm_mcp.service.batch.report import report
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.service import Service, open_service
from rlm_mcp.settings import Settings


async def run_batch(launch: Launch, given: Mapping[str, Any]) -> bool:
    """Ask all questions; return whether each of them has an answer.

    Raises:
        InvalidInputError: a text cannot be stored, or with `strict` a line is bad.
    """
    lines, bad = await _read(given["questions"])
    _name_bad(bad, is_strict=given["strict"])
    async with open_service(launch.settings, named=given["texts"]) as service:
        texts = _Texts(service, given["texts"])
        await texts.add_all()
        work = Batch(service.runs, texts.find, _options(launch.settings, given))
        results = await _write(work, lines, given["out"])
    summary = report(results, work.unasked)
    if given["has_report"]:
        say(json.dumps(summary, ensure_ascii=False, indent=2))
    answered = sum(one["answer"] is not None for one in results)
    say(f"{answered} of {summary['questions']} questions answered.", err=True)
    return not bad and answered == summary["questions"]


async def _read(path: Path) -> tuple[list[BatchLine], list[BadLine]]:
    text = await anyio.Path(path).read_text("utf-8-sig")
    return read_lines(text.split("\n"))  # JSON may hold other ends of lines as they are


def _name_bad(bad: Sequence[BadLine], *, is_strict: bool) -> None:
    for line in bad:
        say(f"line {line.number}: {line.reason}", err=True)
    if bad and is_strict:
        raise InvalidInputError(
            f"{len(bad)} of the lines are bad; nothing was asked.",
            fix="Correct them, or leave --strict out to skip them.",
        )


def _options(settings: Settings, given: Mapping[str, Any]) -> BatchOptions:
    fields = settings.config().model_dump(mode="json")
    models = {"root_model": settings.root_model, "sub_model": settings.sub_model}
    return BatchOptions(
        name=given["questions"].name,
        settings=json.dumps({**fields, **models}, sort_keys=True),
        at_once=given["at_once"],
        retries_failed=given["retry"] == "failed",
        max_usd=given["max_usd"],
        score=given["score"],
    )


async def _write(work: Batch, lines: Sequence[BatchLine], out: Path) -> list[dict[str, Any]]:
    """Write each result as it comes, and show how many there are."""
    results: list[dict[str, Any]] = []
    with messages().status(f"0 of {len(lines)}") as shown:
        async with (
            await anyio.open_file(out, "w", encoding="utf-8") as file,
            aclosing(work.run(lines)) as answered,
        ):
            async for result in answered:
                results.append(result)
                await file.write(json.dumps(result, ensure_ascii=False) + "\n")
                await file.flush()
                shown.update(f"{len(results)} of {len(lines)}")
    return results


class _Texts:
    """The texts of a batch, by the names that lines may give them."""

    def __init__(self, service: Service, sources: Sequence[str]) -> None:
        self._service = service
        self._sources = sources
        self._handles: dict[str, str] = {}
        self._all: tuple[str, ...] = ()
        self._adding = anyio.Lock()

    async def add_all(self) -> None:
        """Store every source."""
        handles: list[str] = []
        for source in self._sources:
            added = await add_source(self._service, NewText(path=source))
            handles.append(str(added.handle))
            for name in (source, added.name, Path(source).name):
                self._handles.setdefault(name, str(added.handle))
        self._all = tuple(dict.fromkeys(handles))

    async def find(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the handles of names, storing a file of a given directory when it is named.

        Raises:
            InvalidInputError: a name is unknown.
        """
        if not names:
            return self._all
        async with self._adding:
            return tuple([await self._find(name) for name in names])

    async def _find(self, name: str) -> str:
        if name in self._handles or name.startswith("ctx_"):
            return self._handles.get(name, name)
        for source in self._sources:
            path = anyio.Path(source) / name
            if await path.is_file():
                added = await add_source(self._service, NewText(path=str(path)))
                self._handles[name] = str(added.handle)
                return self._handles[name]
        raise InvalidInputError(
            f"There is no text {name!r} among those of --texts.",
            fix="Name a source, a file in a directory of --texts, or a handle.",
        )
