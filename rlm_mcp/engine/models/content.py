"""What a message of a chat completion holds, in each shape that servers give it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
_THOUGHT_FIELDS = ("thinking", "summary", "text")
# What gateways put a completion into.
_WRAPPERS = ("data", "result", "output", "response", "body")


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return what is an object; an empty one in place of anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def unlisted(data: object) -> Mapping[str, Any]:
    """Return an object, also out of the list that some servers put it into."""
    if isinstance(data, dict):
        return cast("Mapping[str, Any]", data)
    listed = list_of(data)
    return mapping_of(listed[0] if listed else data)


def unwrapped(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the completion that a gateway has put into an answer of its own."""
    if data.get("choices") or data.get("error"):
        return data
    for name in _WRAPPERS:
        inner = data.get(name)
        if isinstance(inner, str) and inner.lstrip().startswith("{"):
            try:
                inner = json.loads(inner)
            except (ValueError, RecursionError):
                continue
        if mapping_of(inner).get("choices"):
            return mapping_of(inner)
    return data


def text_of(content: object) -> str:
    """Return the text of a message, whole or in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):  # one part that is in no list
        fields = mapping_of(cast("object", content))
        return text_of(fields.get("text", fields.get("value", fields.get("content"))))
    # Parts, as multimodal providers send them; some have the model's thinking among them.
    return parts_of([part for part in list_of(content) if not _is_thought(part)], "text")


def parts_of(content: object, name: str) -> str:
    """Join one field of the parts of a message."""
    return "".join(_part_of(part, name) for part in list_of(content))


def _part_of(part: object, name: str) -> str:
    if isinstance(part, str):
        return part if name == "text" else ""
    fields = mapping_of(part)
    told = fields.get(name)
    return text_of(fields.get("content") if told is None and name == "text" else told)


def _is_thought(part: object) -> bool:
    return str(mapping_of(part).get("type")).startswith(("thinking", "reasoning"))


def thoughts_of(content: object) -> str:
    """Join the parts of a message that are thinking: a text, or parts of their own."""
    thoughts = (mapping_of(part) for part in list_of(content) if _is_thought(part))
    texts = (
        next(filter(None, (text_of(one.get(name)) for name in _THOUGHT_FIELDS)), "")
        for one in thoughts
    )
    return "".join(texts)


def reasoning_of(message: Mapping[str, Any]) -> str:
    """Return the thinking that stands beside the content."""
    for name in _REASONING_FIELDS:
        if (told := message.get(name)) and (text := text_of(told)):
            return text
    details = message.get("reasoning_details")  # OpenRouter's
    return thoughts_of(details) if details else ""


def list_of(value: object) -> list[Any]:
    """Return what is a list; an empty one in place of anything else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def calls_as_text(calls: Iterable[Mapping[str, str]]) -> str:
    """Write native tool calls as models write them in text, so that one parser reads both."""
    return "\n".join(f"<tool_call>{json.dumps(dict(call))}</tool_call>" for call in calls)


def merged(choices: Sequence[object]) -> Mapping[str, Any]:
    """Return the choice that holds the reply.

    Some servers split one reply: its text is in the first, a call of a tool in the next.
    """
    found = [mapping_of(choice) for choice in choices]
    filled = (one for one in found if _is_filled(one))
    return next(filled, found[0] if found else {})


def _is_filled(choice: Mapping[str, Any]) -> bool:
    message = choice.get("message") or choice.get("delta")
    fields = mapping_of(message)
    names = ("content", "tool_calls", "function_call", "refusal", *_REASONING_FIELDS)
    told = any(fields.get(name) for name in names)
    return told or bool(choice.get("text")) or (isinstance(message, str) and bool(message))
