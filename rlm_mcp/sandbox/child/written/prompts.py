"""Prompts in the forms in which models pass them to `llm_query` and its kin.

By other names (`question=`, `context=`), with settings of a chat API, as messages, as pairs of a
question and a text. Runs in the REPL's process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

_FIRST = ("system", "system_prompt", "system_message", "instructions", "instruction", "role")
_TEXTS = (
    *("context", "contexts", "text", "texts", "chunk", "chunks", "document", "documents", "doc"),
    *("docs", "content", "contents", "passage", "passages", "data", "input", "inputs", "snippet"),
    *("sub_context", "section", "page"),
)
_QUESTIONS = (
    *("prompt", "prompts", "question", "questions", "query", "queries", "q", "task", "message"),
    *("messages", "user_prompt", "user", "request"),
)
# What a chat API takes; the run's settings decide it here.
_SETTINGS = frozenset(
    [
        *("temperature", "max_tokens", "max_completion_tokens", "max_new_tokens", "top_p", "top_k"),
        *("stop", "seed", "timeout", "stream", "n", "retries", "max_retries", "max_workers"),
        *("batch_size", "concurrency", "max_concurrency", "parallel", "verbose"),
    ]
)


class Given(NamedTuple):
    """What a call was given: what it asks, what it asks about, a model and a schema."""

    question: Any
    text: Any = None
    model: Any = None
    schema: Any = None


def read_call(name: str, values: Sequence[Any], named: Mapping[str, Any]) -> Given:
    """Sort what a helper was called with.

    The second value without a name may be a model's name, a text or a schema.

    Raises:
        TypeError: there is no prompt, or a name that says nothing; the message shows the call.
    """
    is_batch = name.endswith("batch")
    usage = f"{name}({'prompts' if is_batch else 'prompt'}, model=None, schema=None)"
    for each in named:
        if each not in {*_FIRST, *_TEXTS, *_QUESTIONS, *_SETTINGS, "model", "schema"}:
            raise TypeError(f"{usage} takes no {each!r}: put all text into the prompt")
    first = [named[each] for each in _FIRST if named.get(each) is not None]
    asked = [named[each] for each in _QUESTIONS if named.get(each) is not None]
    texts = [named[each] for each in _TEXTS if named.get(each) is not None]
    model, schema = named.get("model"), named.get("schema")
    if values:
        asked.insert(0, values[0])
    rest = [each for each in values[1:] if each is not None]
    for each in rest:
        if isinstance(each, dict) and schema is None:
            schema = cast("object", each)
        elif isinstance(each, str) and model is None and not texts and _is_only_text(rest):
            model = each  # the host knows whether it names one
        else:
            texts.append(each)
    if not asked and not texts and not is_batch:
        raise TypeError(f"{usage} takes a prompt")
    if not asked:
        asked = [texts.pop()] if texts else []
    return Given(_joined([*first, *asked]), _joined(texts), model, schema)


def _is_only_text(values: Sequence[Any]) -> bool:
    return sum(not isinstance(each, dict) for each in values) == 1


def read_inner(name: str, values: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the question and the text of a call of `rlm_query` or `rlm_query_batch`.

    Raises:
        TypeError: there is no question, or a name that says nothing; the message shows the call.
    """
    usage = f"{name}(question, context)"
    for each in named:
        if each not in {*_TEXTS, *_QUESTIONS, *_SETTINGS, "model"}:
            raise TypeError(f"{usage} takes no {each!r}")
    asked = [*values[:1], *(named[each] for each in _QUESTIONS if each in named)]
    texts = [*values[1:], *(named[each] for each in _TEXTS if each in named)]
    if len(asked) != 1 or len(texts) > 1:
        raise TypeError(f"{usage} takes a question and a text")
    return asked[0], texts[0] if texts else None


def are_pairs(questions: Any) -> bool:
    """Whether each of several questions comes with its text."""
    if not isinstance(questions, list | tuple):
        return False
    items = cast("Sequence[Any]", questions)
    return bool(items) and all(map(_is_pair, items))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(cast("Sequence[Any]", value)) == 2


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) < 2:
        return parts[0] if parts else None
    return "\n\n".join(map(as_text, parts))


def as_text(value: Any) -> str:
    """Return what was given as a prompt as text: messages and lists of texts are joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        named = [fields[each] for each in (*_FIRST[:-1], *_TEXTS, *_QUESTIONS) if each in fields]
        return "\n\n".join(map(as_text, named)) if named else str(fields)
    is_list = isinstance(value, list | tuple)
    items = cast("Sequence[Any]", value) if is_list else ()
    if items and all(isinstance(item, str) or _is_message(item) for item in items):
        return "\n\n".join(map(as_text, items))
    return str(cast("object", value))


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "content" in value


def with_text(question: Any, text: Any) -> str:
    """Put a question behind what it is about."""
    return as_text(question) if text is None else f"{as_text(text)}\n\n{as_text(question)}"


def paired(name: str, questions: Any, texts: Any) -> list[str]:
    """Return prompts: of questions alone, or with a text for each.

    One question goes with all texts, one text with all questions.

    Raises:
        TypeError: it is one prompt, or nothing.
        ValueError: there are not as many texts as questions.
    """
    if texts is None:
        if questions is None or isinstance(questions, str | bytes | Mapping):
            kind = type(cast("object", questions)).__name__
            raise TypeError(f"{name} takes a list of prompts, not {kind}")
        return list(map(as_text, cast("Iterable[Any]", questions)))
    asked: list[Any] = [questions] if isinstance(questions, str) else list(questions)
    about: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    asked *= len(about) if len(asked) == 1 else 1
    about *= len(asked) if len(about) == 1 else 1
    if len(asked) != len(about):
        raise ValueError(
            f"{name} got {len(asked)} questions and {len(about)} texts; give as many of one as of "
            "the other, or one question"
        )
    return [with_text(one, other) for one, other in zip(asked, about, strict=True)]


def read_schema(schema: Any) -> str:
    """Return a JSON Schema as JSON.

    Raises:
        TypeError: it is none; the message says what one is.
    """
    maker = getattr(schema, "model_json_schema", None)  # of pydantic
    found = maker() if callable(maker) else schema
    if isinstance(found, str) and found.lstrip().startswith("{"):
        return found
    example = "such as {'type': 'object', 'properties': {'count': {'type': 'integer'}}}"
    if not isinstance(found, dict):
        kind = type(cast("object", found)).__name__
        raise TypeError(f"schema is a dict, a JSON Schema, not {kind}: {example}")
    try:
        return json.dumps(found)
    except (TypeError, ValueError) as error:
        raise TypeError(f"schema is a dict, a JSON Schema, {example}: {error}") from None
