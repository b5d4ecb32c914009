"""A process that answers with one engine; driven by `dialogue.py`.

`python dialogue_player.py ENGINE BASE_URL`: the model's name says which replies are given.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import lines

TURNS = 10
SECONDS = 60


def _of_wrapper(package: str, base_url: str, model: str, question: str, context: str) -> str | None:
    """Ask what two of the packages call `RLMWrapper`."""
    library = import_module(package)
    client = import_module("openai").OpenAI(base_url=base_url, api_key="none")
    config = library.RLMConfig(max_iterations=TURNS)
    return library.RLMWrapper(client, model, config=config).generate(question, context).answer


def _rlms(base_url: str, model: str, question: str, context: str) -> str | None:
    engine = import_module("rlm").RLM(
        backend="openai",
        backend_kwargs={"model_name": model, "base_url": base_url, "api_key": "none"},
        max_iterations=TURNS,
        max_timeout=SECONDS,
    )
    return engine.completion(context, root_prompt=question).response


ENGINES: dict[str, Callable[[str, str, str, str], str | None]] = {
    "rlm_mcp": partial(_of_wrapper, "rlm_mcp"),
    "replm": partial(_of_wrapper, "replm"),
    "rlms": _rlms,
}


async def main(engine: str, base_url: str) -> None:
    """Serve commands until stdin ends."""

    async def play(model: str, question: str, context: str) -> dict[str, Any]:
        try:
            asked = asyncio.to_thread(ENGINES[engine], base_url, model, question, context)
            answer = await asyncio.wait_for(asked, SECONDS)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is what the user of the engine gets
            return {"error": repr(error)[:200]}
        return {"answer": None if answer is None else str(answer)}

    await lines.serve({"play": play})


asyncio.run(main(*sys.argv[1:]))
