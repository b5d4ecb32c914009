"""A process that answers with one engine; driven by `play.py`.

`python player.py ENGINE OPTIONS`, the options as JSON. Each line of stdin names a file with a task
and the models; each line of stdout is what came of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_BARE_TRIES = 8

Played = dict[str, Any]


def _rlm_mcp(asked: dict[str, Any], options: dict[str, Any]) -> Played:
    return _of_wrapper("rlm_mcp", asked, options, max_seconds=options["seconds"])


def _replm(asked: dict[str, Any], options: dict[str, Any]) -> Played:
    return _of_wrapper("replm", asked, options)


def _of_wrapper(
    package: str, asked: dict[str, Any], options: dict[str, Any], **limits: Any
) -> Played:
    """Ask what two of the packages call `RLMWrapper`, with their own defaults."""
    library = import_module(package)
    if options["variant"]:
        limits["prompt_variant"] = options["variant"]
    client = import_module("openai").AsyncOpenAI(
        base_url=options["base_url"], api_key=_key(options)
    )
    wrapper = library.RLMWrapper(
        client, asked["root"], asked["sub"], config=library.RLMConfig(**limits)
    )
    response = asyncio.run(wrapper.agenerate(asked["question"], asked["context"]))
    return {
        "answer": response.answer,
        "status": str(getattr(response, "status", "")),
        "turns": response.iterations,
        "sub_calls": response.sub_calls,
        "input_tokens": response.total_input_tokens,
        "output_tokens": response.total_output_tokens,
    }


def _rlms(asked: dict[str, Any], options: dict[str, Any]) -> Played:
    def settings(model: str) -> dict[str, str]:
        return {"model_name": model, "base_url": options["base_url"], "api_key": _key(options)}

    engine = import_module("rlm").RLM(
        backend="openai",
        backend_kwargs=settings(asked["root"]),
        environment="local",
        other_backends=["openai"],
        other_backend_kwargs=[settings(asked["sub"])],
        max_timeout=options["seconds"],
    )
    completion = engine.completion(asked["context"], root_prompt=asked["question"])
    usage = completion.usage_summary
    calls = usage.model_usage_summaries
    return {
        "answer": str(completion.response),
        "sub_calls": calls[asked["sub"]].total_calls if asked["sub"] in calls else 0,
        "input_tokens": usage.total_input_tokens,
        "output_tokens": usage.total_output_tokens,
    }


def _bare(asked: dict[str, Any], options: dict[str, Any]) -> Played:
    """Put the text into the model's window, as far as it goes: its start and its end."""
    openai = import_module("openai")
    client = openai.OpenAI(base_url=options["base_url"], api_key=_key(options))
    context = asked["context"]
    text = context if isinstance(context, str) else "\n\n".join(context)
    chars = min(len(text), options["window_chars"])
    for _ in range(_BARE_TRIES):
        prompt = f"{_cut(text, chars)}\n\n{asked['question']}"
        try:
            reply = client.chat.completions.create(
                model=asked["root"], messages=[{"role": "user", "content": prompt}]
            )
        except openai.BadRequestError:  # too long for its window
            chars //= 2
            continue
        usage = reply.usage
        return {
            "answer": reply.choices[0].message.content,
            "status": "whole" if chars == len(text) else f"{chars} of {len(text)} characters",
            "turns": 1,
            "input_tokens": usage.prompt_tokens if usage else None,
            "output_tokens": usage.completion_tokens if usage else None,
        }
    raise RuntimeError("The endpoint refused every length of the prompt.")


def _cut(text: str, chars: int) -> str:
    if chars >= len(text):
        return text
    return f"{text[: chars // 2]}\n[…]\n{text[len(text) - chars // 2 :]}"


def _key(options: dict[str, Any]) -> str:
    return os.environ.get(options["api_key_env"]) or "none"


ENGINES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Played]] = {
    "rlm_mcp": _rlm_mcp,
    "replm": _replm,
    "rlms": _rlms,
    "bare": _bare,
}


def main(engine: str, options: dict[str, Any]) -> None:
    """Serve tasks until stdin ends."""
    # An engine that prints, or redirects `sys.stdout`, must not write among our lines.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    while line := sys.stdin.readline():
        asked = json.loads(Path(line.rstrip("\n")).read_text(encoding="utf-8"))
        began = time.monotonic()
        try:
            played = ENGINES[engine](asked, options)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is what the user of the engine gets
            played = {"answer": None, "error": repr(error)[:300]}
        played["seconds"] = round(time.monotonic() - began, 2)
        replies.write(json.dumps(played) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
