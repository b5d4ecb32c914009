"""Opens a batch in a program: `async with open_batch(texts) as batch`."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlm_mcp.errors import InvalidInputError, first_of
from rlm_mcp.service.batch.batch import Batch, BatchOptions
from rlm_mcp.service.batch.lines import BatchLine, line_of
from rlm_mcp.service.batch.report import report
from rlm_mcp.service.batch.scores import SCORE_NAMES
from rlm_mcp.service.batch.texts import AddText, BatchTexts
from rlm_mcp.service.contexts.added import Added
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.contexts.writing import no_report
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.service import Service
from rlm_mcp.settings import Settings, load_settings


class OpenBatch:
    """Asks questions over the texts of a batch, and sums up what came of them."""

    def __init__(self, batch: Batch, score: str) -> None:
        self._batch = batch
        self._score = score
        self._results: list[dict[str, Any]] = []

    async def run(
        self, lines: Iterable[BatchLine | Mapping[str, Any]]
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield a result for each question, in order of their end. Close it when you stop early.

        Args:
            lines: questions, each a `BatchLine` or what a line of a file holds: `{"id",
                "question"}`, and if wanted `contexts`, `expected`, `score`, `answer_schema`,
                `budget`.

        Raises:
            InvalidInputError: a line is none, or an id occurs twice; nothing was asked.
            ConfigurationError: no model is configured, or there is a limit in USD and no price, so
                that it would never end.
        """
        async with aclosing(self._batch.run(_checked(lines, self._score))) as answered:
            async for result in answered:
                self._results.append(result)
                yield result

    def report(self) -> dict[str, Any]:
        """Sum up all results until now: scores with their interval, cost, tokens, times."""
        return report(self._results, self._batch.unasked)


@asynccontextmanager
async def open_batch(
    texts: Sequence[str | Path],
    *,
    settings: Settings | None = None,
    options: BatchOptions = BatchOptions(),  # noqa: B008  # frozen
    adding: Callable[[Service], AddText] | None = None,
) -> AsyncGenerator[OpenBatch]:
    """Open the store and the models, and store the texts.

    A batch that is opened again, after whatever end, finds its runs by their question, texts,
    models and options: nothing on record is paid for twice.

    Args:
        texts: files, directories, globs or handles that questions are asked about.
        settings: as of a server; None reads the environment.
        adding: makes what stores a text, where somebody wants to see how far that is.

    Raises:
        InvalidInputError: a text cannot be read, or is not text; or an option cannot be used.
        NotFoundError: there is no text with a handle.
        StoreError: the database cannot be opened or written.
    """
    _check(options)
    settings = settings or load_settings()
    try:
        async with _open_batch([str(text) for text in texts], settings, options, adding) as batch:
            yield batch
    except BaseExceptionGroup as group:  # the first error without the wrapping
        raise first_of(group) from None


@asynccontextmanager
async def _open_batch(
    sources: Sequence[str],
    settings: Settings,
    options: BatchOptions,
    adding: Callable[[Service], AddText] | None,
) -> AsyncGenerator[OpenBatch]:
    async with open_service(settings, named=sources) as service:
        found = BatchTexts(sources, (adding or _plainly)(service))
        await found.add_all()
        for handle in await found.find(()):
            await service.contexts.passage(handle, 0, 1)  # each question would be refused else
        options = replace(options, settings=options.settings + _depends_on(settings))
        yield OpenBatch(Batch(service.runs, found.find, options), options.score)


def _check(options: BatchOptions) -> None:
    if options.score not in SCORE_NAMES:
        raise InvalidInputError(
            f"There is no score {options.score!r}.", fix=f"Scores: {', '.join(SCORE_NAMES)}."
        )
    if options.at_once < 1:
        raise InvalidInputError(
            f"at_once is {options.at_once!r}: no question could be asked.", fix="Give 1 or more."
        )


def _plainly(service: Service) -> AddText:
    async def add(text: NewText) -> Added:
        return await service.contexts.add(text, no_report)

    return add


def _depends_on(settings: Settings) -> str:
    """Return all in the settings that an answer depends on."""
    models = {"root_model": settings.root_model, "sub_model": settings.sub_model}
    return json.dumps({**settings.config().model_dump(mode="json"), **models}, sort_keys=True)


def _checked(lines: Iterable[BatchLine | Mapping[str, Any]], score: str) -> list[BatchLine]:
    checked: dict[str, BatchLine] = {}
    for given in lines:
        line = line_of(asdict(given) if isinstance(given, BatchLine) else given, score)
        if line.id in checked:
            raise InvalidInputError(
                f"The id {line.id!r} stands for two questions.", fix="Give each its own."
            )
        checked[line.id] = line
    return list(checked.values())
