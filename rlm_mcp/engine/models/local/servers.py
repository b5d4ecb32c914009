"""Which server answers at an address, and how the window of a model is read from it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

from rlm_mcp.engine.models.completions import count_of, mapping_of

ServerKind = Literal["ollama", "lm-studio", "llama.cpp", "vllm"]

# What each server says in its list of models.
_BY_OWNER: Mapping[str, ServerKind] = {
    "library": "ollama",
    "organization_owner": "lm-studio",
    "llamacpp": "llama.cpp",
    "vllm": "vllm",
}
_OLLAMA_PORT = 11434  # whose models of other libraries have other owners
_VERSION = re.compile(r"/v\d+[a-z0-9]*/*$")
_NUM_CTX = re.compile(r"^num_ctx\s+(\d+)", re.MULTILINE)


class Look(Protocol):
    """Asks a server for JSON; gives None where it has none at that address."""

    def __call__(self, address: str, body: Mapping[str, Any] | None = None, /) -> Awaitable[object]:
        """Ask once.

        Raises:
            AttemptFailedError: nothing answers, or the server is not ready.
        """
        ...


@dataclass(frozen=True)
class LocalModel:
    """What a server says of one of its models.

    Args:
        window: tokens that it reads and writes now; None where the server does not say.
        most: tokens that the model could have.
        slots: requests that the server answers at once, each with a window of its own.
    """

    window: int | None = None
    most: int | None = None
    slots: int | None = None


def root_of(base: str) -> str:
    """Return the address of a server, of which `base` is its OpenAI-compatible part."""
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=_VERSION.sub("", parts.path).rstrip("/"), query=""))


async def recognise(look: Look, base: str) -> ServerKind | None:
    """Ask a server for its models, and say by that which it is; None where it is another.

    Raises:
        AttemptFailedError: nothing answers, or the server is not ready.
    """
    listed = await models_of(look, base)
    for model in listed:
        kind = _BY_OWNER.get(str(model.get("owned_by")))
        if kind is not None:
            return kind
    return "ollama" if listed and urlsplit(base).port == _OLLAMA_PORT else None


async def models_of(look: Look, base: str) -> Sequence[Mapping[str, Any]]:
    """Return the models that a server lists.

    Raises:
        AttemptFailedError: nothing answers, or the server is not ready.
    """
    return rows_of(await look(f"{root_of(base)}/v1/models"), "data")


async def slots_of(look: Look, base: str) -> int:
    """Return how many requests a llama.cpp server answers at once; 0 where it does not say.

    Raises:
        AttemptFailedError: nothing answers, or the server is not ready.
    """
    return number_of(await look(f"{root_of(base)}/props"), "total_slots") or 0


async def read_model(look: Look, base: str, kind: ServerKind, name: str) -> LocalModel:
    """Return what a server says of one of its models.

    Raises:
        AttemptFailedError: nothing answers, or the server is not ready.
    """
    root = root_of(base)
    if kind == "ollama":
        return await _read_ollama(look, root, name)
    if kind == "lm-studio":
        [model] = _named(await look(f"{root}/api/v0/models"), "data", "id", name)
        return LocalModel(
            number_of(model, "loaded_context_length"), number_of(model, "max_context_length")
        )
    if kind == "llama.cpp":
        return await _read_llama_cpp(look, root)
    [model] = _named(await look(f"{root}/v1/models"), "data", "id", name)
    return LocalModel(number_of(model, "max_model_len"))


async def _read_ollama(look: Look, root: str, name: str) -> LocalModel:
    [loaded] = _named(await look(f"{root}/api/ps"), "models", "name", _tagged(name))
    shown = mapping_of(await look(f"{root}/api/show", {"model": name}))
    set_for_it = _NUM_CTX.search(str(shown.get("parameters") or ""))
    window = number_of(loaded, "context_length") or (int(set_for_it[1]) if set_for_it else None)
    facts = mapping_of(shown.get("model_info"))
    key = next((key for key in facts if key.endswith(".context_length")), "")
    return LocalModel(window, number_of(facts, key))


async def _read_llama_cpp(look: Look, root: str) -> LocalModel:
    props = await look(f"{root}/props")
    window = number_of(mapping_of(props).get("default_generation_settings"), "n_ctx")
    slots = number_of(props, "total_slots")
    if window is None or slots is None:  # a server may keep its properties to itself
        listed = await look(f"{root}/slots")
        rows = [mapping_of(one) for one in cast("list[object]", listed)] if _is_list(listed) else []
        slots = slots or len(rows) or None
        window = window or number_of(rows[0] if rows else {}, "n_ctx")
    return LocalModel(window, slots=slots)


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _named(found: object, place: str, key: str, name: str) -> list[Mapping[str, Any]]:
    """Return the row with a name, alone, or an empty one."""
    matching = [row for row in rows_of(found, place) if row.get(key) == name]
    return matching[:1] or [{}]


def rows_of(found: object, place: str) -> list[Mapping[str, Any]]:
    """Return the objects of the list at a place of an object; none where there is no list."""
    listed = mapping_of(found).get(place)
    rows = cast("list[object]", listed) if _is_list(listed) else []
    return [mapping_of(row) for row in rows]


def number_of(value: object, key: str) -> int | None:
    """Return a count above 0 of an object; None where there is none."""
    return count_of(mapping_of(value).get(key)) or None


def _is_list(value: object) -> bool:
    return isinstance(value, list)
