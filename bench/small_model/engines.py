"""The engines, each answering one question; only the one that is asked for is imported.

All get the same limits: eight turns, 512 tokens a turn, 120 a sub-call, temperature 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

TURNS = 8
ROOT_TOKENS = 512
SUB_TOKENS = 120
WINDOW = 8_192
SUB_CALLS = 60
CONCURRENT = 1  # many calls at once would push the root's prompt out of a small server's cache
ATTEMPTS = 3

Say = Callable[[str, str], None]


@dataclass
class Played:
    """What came of one question; `said` is what was written to and by the root."""

    answer: str = ""
    status: str = ""
    turns: int = 0
    sub_calls: int = 0
    said: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


def rlm_mcp(base_url: str, model: str, question: str, context: str | list[str]) -> Played:
    """This engine, in the variant that was made for such models."""
    return _ours(base_url, model, question, context)


def rlm_mcp_attempts(base_url: str, model: str, question: str, context: str | list[str]) -> Played:
    """This engine with several attempts, each a little warmer than the one before."""
    return _ours(base_url, model, question, context, attempts=ATTEMPTS)


def _ours(
    base_url: str, model: str, question: str, context: str | list[str], **options: Any
) -> Played:
    options |= {"root_context_tokens": WINDOW, "max_concurrent_calls": CONCURRENT}
    response = _wrapper("rlm_mcp", base_url, model, **options).generate(question, context)
    status = f"{response.status} {response.error or ''}".strip()
    return _played(response, status)


def replm(base_url: str, model: str, question: str, context: str | list[str]) -> Played:
    """`replm` 0.1.0, in its own variant for small windows."""
    return _played(_wrapper("replm", base_url, model).generate(question, context))


def rlms(base_url: str, model: str, question: str, context: str | list[str]) -> Played:
    """`rlms` 0.1.3, with its own prompt."""
    engine = import_module("rlm").RLM(
        backend="openai",
        backend_kwargs={"model_name": model, "base_url": base_url, "api_key": "none"},
        max_iterations=TURNS,
        max_timeout=600,
        sampling_args={"temperature": 0, "max_tokens": ROOT_TOKENS},
        sub_sampling_args={"temperature": 0, "max_tokens": SUB_TOKENS},
    )
    completion = engine.completion(context, root_prompt=question)
    return Played(str(completion.response))


def _wrapper(package: str, base_url: str, model: str, **options: Any) -> Any:
    """Make what both packages call `RLMWrapper`, with the same options."""
    library = import_module(package)
    client = import_module("openai").OpenAI(base_url=base_url, api_key="none", timeout=900)
    config = library.RLMConfig(
        prompt_variant="small_context",
        max_iterations=TURNS,
        max_sub_calls=SUB_CALLS,
        root_max_tokens=ROOT_TOKENS,
        sub_max_tokens=SUB_TOKENS,
        sub_call_max_input_chars=12_000,
        temperature=0,
        sub_temperature=0,
        **options,
    )
    return library.RLMWrapper(client, model, model, config=config)


def _played(response: Any, status: str = "") -> Played:
    said = [(entry.role, entry.truncated_content) for entry in response.history]
    return Played(response.answer or "", status, response.iterations, response.sub_calls, said)


ENGINES: dict[str, Callable[[str, str, str, str | list[str]], Played]] = {
    "rlm_mcp": rlm_mcp,
    "rlm_mcp_attempts": rlm_mcp_attempts,
    "replm": replm,
    "rlms": rlms,
}
