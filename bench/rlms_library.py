"""A process that works with rlms; measured by `compare.py`.

`python rlms_library.py BASE_URL`: the engine is synchronous, so it works in a thread.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import lines
from rlm import RLM
from texts import make_text

QUESTION = "How many ships came in?"


class Subject:
    """Answers commands with rlms and one base URL."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._text = "a short text"

    async def text(self, megabytes: int, salt: str) -> None:
        """Make the text that runs are given."""
        self._text = make_text(megabytes, salt)

    async def run(self, model: str) -> dict[str, Any]:
        """Answer a question; says when it began and what it took."""
        started, worked = time.monotonic(), time.process_time()
        rlm = RLM(
            "openai",
            self._settings(f"{model}:rlms"),
            environment="local",
            other_backends=["openai"],
            other_backend_kwargs=[self._settings("sub:50")],
        )
        response = await asyncio.to_thread(rlm.completion, self._text, root_prompt=QUESTION)
        assert response.response == "done", response
        return {"started": started, "cpu": time.process_time() - worked}

    def _settings(self, model: str) -> dict[str, str]:
        return {"model_name": model, "base_url": self._base_url, "api_key": "none"}


async def main(base_url: str) -> None:
    """Serve commands until stdin ends."""
    it = Subject(base_url)
    await lines.serve({"text": it.text, "run": it.run})


asyncio.run(main(*sys.argv[1:]))
