"""What commands print: JSON in the form of each known program, or the reply itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlm_mcp.engine.models.chat import ChatReply
from rlm_mcp.engine.models.completions import count_of, mapping_of
from rlm_mcp.engine.models.metering import estimate_tokens
from rlm_mcp.errors import ModelReplyError
from rlm_mcp.text import width

Form = Literal["any", "claude", "codex", "gemini", "llm"]
QUOTED_CHARS = 500
_LLM_USAGE = re.compile(r"Token usage: ([\d,]+) input(?:, ([\d,]+) output)?")


@dataclass(frozen=True)
class _Said:
    """What a command said: its reply, or why there is none; counts of 0 are not known."""

    text: str = ""
    problem: str = ""
    given: int = 0
    made: int = 0
    cached: int = 0
    written: int = 0
    usd: float | None = None


def read_output(
    output: str, prompt_chars: int, form: Form = "any", complaints: str = ""
) -> ChatReply:
    """Read what a command printed.

    Args:
        output: its standard output.
        prompt_chars: of the prompt, for an estimate where no tokens are counted.
        form: of a known program; `any` is JSON with `result` and with `usage` or `total_cost_usd`,
            or else the reply as it is.
        complaints: its standard error, where one program counts tokens.

    Raises:
        ModelReplyError: it is empty, or says that it is an error.
    """
    said = _READERS[form](output, complaints)
    if said.problem:
        raise ModelReplyError(f"The command reported an error: {said.problem[:QUOTED_CHARS]}")
    if not said.text.strip():
        raise ModelReplyError("The command printed nothing.", fix="Try it by hand.")
    return ChatReply(
        said.text,
        input_tokens=said.given or estimate_tokens(prompt_chars),
        output_tokens=said.made or estimate_tokens(width(said.text)),
        usage_estimated=not (said.given and said.made),
        cached_input_tokens=min(said.cached, said.given),
        cache_written_tokens=min(said.written, max(0, said.given - said.cached)),
        told_usd=said.usd,
    )


def problem_in(output: str, form: Form) -> str:
    """Return the reason for a failure that a command printed as JSON; empty where there is none.

    Other lines may stand before it.
    """
    output = output[output.find("\n{") + 1 :] if form != "codex" else output
    fields = _fields(output)
    if not fields and form != "codex":
        return ""
    said = _READERS[form](output, "")
    return said.problem or (said.text if fields.get("result") else "")


def _read_any(output: str, complaints: str) -> _Said:
    fields = _fields(output)
    is_envelope = isinstance(fields.get("result"), str) and not fields.keys().isdisjoint(
        {"usage", "total_cost_usd", "is_error"}
    )
    if is_envelope or fields.get("is_error"):
        return _read_claude(output, complaints)
    return _Said(output.strip())


def _read_claude(output: str, _: str) -> _Said:
    """`claude -p --output-format json`: one object, whose `usage` has cached tokens apart."""
    fields = _fields(output)
    if not fields:
        return _Said(output.strip())
    text = fields.get("result")
    if fields.get("is_error"):
        return _Said(problem=str(text or fields.get("subtype") or "no reason was given"))
    usage = mapping_of(fields.get("usage"))
    cached = count_of(usage.get("cache_read_input_tokens"))
    written = count_of(usage.get("cache_creation_input_tokens"))
    return _Said(
        text if isinstance(text, str) else "",
        given=count_of(usage.get("input_tokens")) + cached + written,
        made=count_of(usage.get("output_tokens")),
        cached=cached,
        written=written,
        usd=_usd(fields.get("total_cost_usd")),
    )


def _read_codex(output: str, _: str) -> _Said:
    """`codex exec --json`: one object a line; the last message of the agent is the reply."""
    said = _Said()
    for event in _lines(output):
        item, kind = mapping_of(event.get("item")), event.get("type")
        if kind == "item.completed" and item.get("type") == "agent_message":
            said = replace(said, text=str(item.get("text") or ""), problem="")
        elif kind == "turn.completed":
            usage = mapping_of(event.get("usage"))
            said = replace(
                said,
                given=count_of(usage.get("input_tokens")),
                made=count_of(usage.get("output_tokens")),
                cached=count_of(usage.get("cached_input_tokens")),
            )
        elif kind in {"turn.failed", "error"}:
            problem = mapping_of(event.get("error")).get("message") or event.get("message")
            said = replace(said, problem=str(problem or "no reason was given"))
    return said


def _read_gemini(output: str, _: str) -> _Said:
    """`gemini --output-format json`: `response`, and figures for each model that it used."""
    fields = _fields(output)
    if problem := mapping_of(fields.get("error")).get("message"):
        return _Said(problem=str(problem))
    models = mapping_of(mapping_of(fields.get("stats")).get("models"))
    tokens = [mapping_of(mapping_of(one).get("tokens")) for one in models.values()]
    return _Said(
        str(fields.get("response") or ""),
        given=sum(count_of(one.get("prompt")) for one in tokens),
        made=sum(count_of(one.get("candidates")) + count_of(one.get("thoughts")) for one in tokens),
        cached=sum(count_of(one.get("cached")) for one in tokens),
    )


def _read_llm(output: str, complaints: str) -> _Said:
    """`llm --usage`: the reply as it is; tokens are counted on standard error."""
    told = _LLM_USAGE.search(complaints)
    counts = told.groups() if told else ("", "")
    given, made = (int((count or "0").replace(",", "")) for count in counts)
    return _Said(output.strip(), given=given, made=made)


_READERS: Mapping[Form, Callable[[str, str], _Said]] = {
    "any": _read_any,
    "claude": _read_claude,
    "codex": _read_codex,
    "gemini": _read_gemini,
    "llm": _read_llm,
}


def _lines(output: str) -> Iterator[Mapping[str, Any]]:
    for line in output.splitlines():
        if line.lstrip().startswith("{"):
            yield _fields(line)


def _fields(output: str) -> Mapping[str, Any]:
    with suppress(ValueError, RecursionError):
        return mapping_of(json.loads(output))
    return {}


def _usd(value: object) -> float | None:
    """Read a cost; what is not an amount of money counts as missing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
