"""What all events share: how a value is kept as JSON, a type, and the inner run it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, partial
from types import NoneType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypedDict,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")

_IS_LEFT_OUT = object()
LeftOut = Annotated[T | None, _IS_LEFT_OUT]
"""The type of a field whose key is left out where the value is None."""


@dataclass(frozen=True)
class Record:
    """A value that is kept as a JSON object."""

    def to_detail(self) -> dict[str, Any]:
        """Return the object, by its keys."""
        detail: dict[str, Any] = {}
        for key, is_left_out, _ in _layout(type(self)):
            value = getattr(self, key)
            if value is not None or not is_left_out:
                detail[key] = _written(value)
        return detail

    @classmethod
    def from_detail(cls, detail: Mapping[str, Any]) -> Self:
        """Read the object; a missing key leaves its field's default, an unknown one is skipped."""
        return cls(
            **{key: read(detail[key]) for key, _, read in _layout(cls) if key in detail},
        )


@cache
def _layout(record: type[Record]) -> tuple[tuple[str, bool, Callable[[Any], Any]], ...]:
    """Return the key of each field, whether it may be left out, and what reads its value."""
    hints = get_type_hints(record, include_extras=True)
    return tuple(
        (one.name, _IS_LEFT_OUT in get_args(hints[one.name]), _reader(hints[one.name]))
        for one in fields(record)
    )


def _reader(hint: Any) -> Callable[[Any], Any]:
    if get_origin(hint) is Annotated:
        return _reader(get_args(hint)[0])
    if NoneType in get_args(hint):
        [some] = [one for one in get_args(hint) if one is not NoneType]
        return partial(_read_unless_null, _reader(some))
    if get_origin(hint) is tuple:
        return partial(_read_each, _reader(get_args(hint)[0]))
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_detail
    return _as_it_is


def _as_it_is(found: Any) -> Any:
    return found


def _read_unless_null(read: Callable[[Any], Any], found: Any) -> Any:
    return None if found is None else read(found)


def _read_each(read: Callable[[Any], Any], found: list[Any]) -> tuple[Any, ...]:
    return tuple(map(read, found))


def _written(value: object) -> object:
    if isinstance(value, Record):
        return value.to_detail()
    if isinstance(value, tuple):
        return [_written(one) for one in cast("tuple[object, ...]", value)]
    return value


EventType = Literal[
    "run_started",
    "iteration_start",
    "code_generated",
    "code_executed",
    "sub_calls_started",
    "sub_calls_finished",
    "warning",
    "final_answer",
    "run_finished",
    "root_delta",  # a piece of the root's reply; in streams that asked for it, never in a log
]

_INNER = "inner"


@dataclass(frozen=True)
class EventDetail(Record):
    """The detail of one event.

    `inner` names the inner run that the event belongs to: the names of the runs from the outer to
    the inner one, joined by `/`.
    """

    type: ClassVar[EventType]

    inner: LeftOut[str] = field(default=None, kw_only=True)


def within_inner_run(name: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's detail as that of an inner run; inner runs inside it keep their names."""
    path = "/".join((name, *inner_path(detail)))
    return {**detail, _INNER: path}


def inner_path(detail: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the inner runs that an event belongs to, from the outermost on."""
    path = detail.get(_INNER)
    return tuple(path.split("/")) if path else ()


class Message(TypedDict):
    """One message as a chat-completions endpoint takes it; `system` comes first or not at all."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Splice:
    """What becomes of a list of messages: those from `start` to `end` stay, `added` follow.

    On disk it is a list of the three.
    """

    start: int
    end: int
    added: tuple[Message, ...]


@dataclass(frozen=True)
class Change(Record):
    """What turns one conversation into the next; a part that stays the same is left out.

    Args:
        head: of the messages that the conversation begins with.
        is_head_omitted: the head is too long for the log; it is made again from the text. On disk
            its key is there, with null.
        turns: of the messages after the head.
        summary: the new summary of turns that were dropped.
    """

    head: Splice | None = None
    is_head_omitted: bool = False
    turns: Splice | None = None
    summary: str | None = None

    @property
    def has_new_head(self) -> bool:
        """Whether the conversation begins with other messages than before."""
        return self.head is not None or self.is_head_omitted

    def to_detail(self) -> dict[str, Any]:
        """Return the object, by its keys."""
        detail: dict[str, Any] = {}
        if self.has_new_head:
            detail["head"] = _list_of(self.head)
        if self.turns is not None:
            detail["turns"] = _list_of(self.turns)
        if self.summary is not None:
            detail["summary"] = self.summary
        return detail

    @classmethod
    def from_detail(cls, detail: Mapping[str, Any]) -> Self:
        """Read the object."""
        head = detail.get("head")
        return cls(
            _splice_of(head),
            "head" in detail and head is None,
            _splice_of(detail.get("turns")),
            detail.get("summary"),
        )


NO_CHANGE = Change()


def _list_of(splice: Splice | None) -> list[Any] | None:
    return None if splice is None else [splice.start, splice.end, list(splice.added)]


def _splice_of(found: list[Any] | None) -> Splice | None:
    if found is None:
        return None
    start, end, added = found
    return Splice(start, end, tuple(added))
