"""Frames between the host and a REPL's process.

A frame is an eight-byte header (two big-endian lengths: JSON, blobs), a small JSON object and the
blobs. The JSON has the kind of the frame, a few numbers and the length of each blob; texts are
blobs of UTF-8. The receiver checks each frame against `TO_HOST` or `TO_CHILD` before using it:
the child runs untrusted code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple, TypeGuard

from rlm_mcp.errors import WireError

HEADER = struct.Struct(">II")
MAX_JSON_BYTES = 1 << 20
MAX_BLOB_BYTES = 64 << 20
MAX_BLOBS = 100_000
NUMBER_BITS = 53
MAX_NUMBER = 1 << NUMBER_BITS
# What a REPL may hand over, in bytes of UTF-8. The child keeps to it, and the host checks.
MAX_NAME_BYTES = 1_000  # of a variable, a type, a model
MAX_MESSAGE_BYTES = 32 << 10  # of an error
MAX_TRACEBACK_BYTES = 128 << 10
MAX_OUTPUT_BYTES = 8 << 20
MAX_ANSWER_CHARS = 8_000_000
MAX_ANSWER_BYTES = 4 * MAX_ANSWER_CHARS
MAX_PREVIEW_BYTES = 1_000
MAX_QUOTE_CHARS = 2_000
MAX_QUOTE_BYTES = 4 * MAX_QUOTE_CHARS
MAX_CITATIONS = 200  # of one cell
CITED_NUMBERS = 3  # of each: document, start and end; end is 0 where it was not found
MAX_SLICE_CHARS = 4_000_000
MAX_SLICE_BYTES = 4 * MAX_SLICE_CHARS
MAX_KEPT_BYTES = 1 << 20  # variables that outlive a killed REPL
MAX_VARIABLES = 1_000
MAX_LASTING_BYTES = 32 << 20  # one variable as it is kept for a later question
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_from_json = json.JSONDecoder().raw_decode


class Frame(NamedTuple):  # made for every message, and a tuple is the cheapest
    """One message: its kind, its numbers and flags, its texts."""

    kind: str
    fields: Mapping[str, Any]
    blobs: tuple[bytes, ...] = ()

    def text(self, index: int) -> str:
        """Return a blob as text; invalid UTF-8 is replaced."""
        return self.blobs[index].decode("utf-8", "replace")


@dataclass(frozen=True)
class Shape:
    """What a frame of one kind may contain.

    Args:
        fields: its fields, each with the check it must pass.
        least_blobs: how many blobs it has at least.
        most_blobs: how many blobs it has at most.
        blobs_for: returns the exact count of blobs if the checked fields determine it, else None.
        most_bytes: returns the largest size of each blob, in order and then over again; without
            it a blob may fill the frame.
    """

    fields: Mapping[str, Callable[[object], bool]]
    least_blobs: int = 0
    most_blobs: int = 0
    blobs_for: Callable[[Mapping[str, Any]], int | None] = lambda _fields: None
    most_bytes: Callable[[Mapping[str, Any]], Sequence[int]] | None = None


def _bytes_of_done(fields: Mapping[str, Any]) -> Sequence[int]:
    error = (MAX_NAME_BYTES, MAX_MESSAGE_BYTES, MAX_TRACEBACK_BYTES) if fields["error"] else ()
    final = (MAX_ANSWER_BYTES, MAX_NAME_BYTES) if fields["final"] else ()
    quotes = (MAX_QUOTE_BYTES,) * _quotes_of(fields)
    return (MAX_OUTPUT_BYTES, MAX_KEPT_BYTES, *error, *final, *quotes)


def _quotes_of(fields: Mapping[str, Any]) -> int:
    return len(fields["cited"]) // CITED_NUMBERS


def _is_cited(value: object) -> bool:
    if not is_numbers(value):
        return False
    return len(value) % CITED_NUMBERS == 0 and len(value) <= CITED_NUMBERS * MAX_CITATIONS


def _bytes_of_slice(fields: Mapping[str, Any]) -> Sequence[int]:
    return (MAX_NAME_BYTES, MAX_SLICE_BYTES if fields["found"] else MAX_NAME_BYTES)


def is_number(value: object) -> bool:
    """Return whether `value` is a whole number that can be a length or an id."""
    return type(value) is int and 0 <= value <= MAX_NUMBER


def is_number_or_none(value: object) -> bool:
    """Return whether `value` is None or passes `is_number`."""
    return value is None or is_number(value)


def is_flag(value: object) -> bool:
    """Return whether `value` is true or false."""
    return type(value) is bool


def is_name(value: object) -> bool:
    """Return whether `value` is a short string."""
    return isinstance(value, str) and len(value) <= 100


def is_numbers(value: object) -> TypeGuard[list[int]]:
    """Return whether `value` is a list of numbers."""
    return isinstance(value, list) and all(map(is_number, value))  # pyright: ignore[reportUnknownArgumentType]  # each item is checked here


TO_CHILD: Mapping[str, Shape] = {
    # code; `holds` says that the host has what the last cell handed over
    "exec": Shape({"cell": is_number, "number": is_number, "holds": is_flag}, 1, 1),
    "reply": Shape({"call": is_number, "ok": is_flag}, 1, 1),  # answer or reason
    "list": Shape({"ticket": is_number}),
    # name; `whole`: either all of the text, if it is at most `limit`, or none of it
    "read": Shape(
        {"ticket": is_number, "start": is_number, "limit": is_number, "whole": is_flag}, 1, 1
    ),
    "restore": Shape({}, 1, 1),  # what an earlier REPL handed over
    # how much of each variable is kept for a later question, and of all
    "keep": Shape({"ticket": is_number, "most": is_number, "room": is_number}),
    "reopen": Shape({"ticket": is_number}, 0, 2 * MAX_VARIABLES),  # name and payload of each
}

TO_HOST: Mapping[str, Shape] = {
    "ready": Shape({}),
    "failed": Shape({}, 1, 1, most_bytes=lambda _fields: (MAX_MESSAGE_BYTES,)),  # the reason
    "restored": Shape({}, 0, MAX_BLOBS, most_bytes=lambda _fields: (MAX_NAME_BYTES,)),  # names
    "call": Shape(  # prompt, model if there is one, documents
        {
            "cell": is_number,
            "call": is_number,
            "name": is_name,
            "batch": is_number,
            "size": is_number,
            "has_model": is_flag,
            "is_list": is_flag,
        },
        1,
        MAX_BLOBS,
    ),
    # output, what a successor may open unless the host has it already (`known`);
    # error's type, message, traceback; final's text and type; the passages that it cited, with
    # their places in `cited`; `restored` says that the cell was ended and everything is as it was
    # before it
    "done": Shape(
        {
            "cell": is_number,
            "chars": is_number,
            "error": is_flag,
            "line": is_number_or_none,
            "final": is_flag,
            "json": is_flag,
            "known": is_flag,
            "restored": is_flag,
            "cited": _is_cited,
        },
        2,
        7 + MAX_CITATIONS,
        lambda fields: 2 + 3 * fields["error"] + 2 * fields["final"] + _quotes_of(fields),
        _bytes_of_done,
    ),
    "variables": Shape(  # name, type and preview of each
        {"ticket": is_number, "sizes": is_numbers},
        0,
        3 * MAX_VARIABLES,
        lambda fields: 3 * len(fields["sizes"]),
        lambda _fields: (MAX_NAME_BYTES, MAX_NAME_BYTES, MAX_PREVIEW_BYTES),
    ),
    "kept": Shape(  # name, payload and reason of each; one of the last two is empty
        {"ticket": is_number},
        0,
        3 * MAX_VARIABLES,
        most_bytes=lambda _fields: (MAX_NAME_BYTES, MAX_LASTING_BYTES, MAX_NAME_BYTES),
    ),
    "reopened": Shape(  # names
        {"ticket": is_number}, 0, MAX_VARIABLES, most_bytes=lambda _fields: (MAX_NAME_BYTES,)
    ),
    "slice": Shape(  # type, text; or, when not found, the names there are
        {
            "ticket": is_number,
            "found": is_flag,
            "json": is_flag,
            "size": is_number,
            "start": is_number,
            "total": is_number,
        },
        0,
        MAX_VARIABLES,
        lambda fields: 2 if fields["found"] else None,
        _bytes_of_slice,
    ),
}


def _json_writer() -> Callable[[object], str]:
    """Return what writes JSON as `_ENCODER.encode` does.

    That makes an encoder in C for each call, which takes twice as long as its work on a frame.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # another Python than CPython
        return _ENCODER.encode
    text = json.encoder.encode_basestring_ascii
    pieces = make(None, _ENCODER.default, text, None, ":", ",", False, False, True)
    return lambda value: "".join(pieces(value, 0))


_to_json = _json_writer()


def utf8(text: str) -> bytes:
    """Encode text; lone surrogates, which UTF-8 cannot hold, become `?`."""
    return text.encode("utf-8", "replace")


def clip(text: str, most_bytes: int) -> bytes:
    """Encode text and cut it to a number of bytes."""
    encoded = utf8(text[:most_bytes])
    return encoded if len(encoded) <= most_bytes else encoded[: most_bytes - 3] + "…".encode()


def encode(kind: str, fields: Mapping[str, Any], *blobs: bytes) -> bytes:
    """Encode a frame.

    Raises:
        ValueError: the frame is larger than the other side accepts.
    """
    lengths = [len(blob) for blob in blobs]
    head = _to_json({**fields, "kind": kind, "lengths": lengths}).encode()
    size = sum(lengths)
    if len(head) > MAX_JSON_BYTES or size > MAX_BLOB_BYTES or len(blobs) > MAX_BLOBS:
        raise ValueError(
            f"a message of {size:,} bytes in {len(blobs):,} parts is too large:"
            f" at most {MAX_BLOB_BYTES:,} bytes in {MAX_BLOBS:,} parts"
        )
    return b"".join((HEADER.pack(len(head), size), head, *blobs))


def sizes(received: bytes | bytearray) -> tuple[int, int]:
    """Decode a header: bytes of JSON, bytes of blobs.

    Raises:
        WireError: a length is over its limit.
    """
    head, body = HEADER.unpack_from(received)
    if not 0 < head <= MAX_JSON_BYTES or body > MAX_BLOB_BYTES:
        raise WireError(f"a frame announces {head} bytes of JSON and {body} bytes of blobs")
    return head, body


def decode(head: bytes, body: bytes, shapes: Mapping[str, Shape]) -> Frame:
    """Decode a frame and check it against the shapes its receiver knows.

    Raises:
        WireError: it fits none of them.
    """
    fields = _object(head)
    kind = fields.pop("kind", None)
    shape = shapes.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise WireError(f"a frame of an unknown kind: {str(kind)[:100]!r}")
    blobs = _cut(body, fields.pop("lengths", None))
    if not shape.least_blobs <= len(blobs) <= shape.most_blobs:
        raise WireError(f"a {kind!r} frame with {len(blobs)} blobs")
    if fields.keys() != shape.fields.keys():
        raise WireError(f"a {kind!r} frame with fields {sorted(fields)[:20]!r}")
    for name, is_valid in shape.fields.items():
        if not is_valid(fields[name]):
            raise WireError(f"a {kind!r} frame whose {name!r} is {str(fields[name])[:100]!r}")
    if shape.blobs_for(fields) not in (None, len(blobs)):
        raise WireError(f"a {kind!r} frame with {len(blobs)} blobs, which do not fit its fields")
    if shape.most_bytes is not None:
        _check_sizes(str(kind), blobs, shape.most_bytes(fields))
    return Frame(str(kind), fields, blobs)


def _check_sizes(kind: str, blobs: Sequence[bytes], most_bytes: Sequence[int]) -> None:
    for place, (blob, most) in enumerate(zip(blobs, cycle(most_bytes), strict=False)):
        if len(blob) > most:
            raise WireError(f"a {kind!r} frame whose blob {place} has {len(blob):,} bytes")


def take_frame(received: bytearray, shapes: Mapping[str, Shape]) -> Frame | None:
    """Remove the first complete frame from what was received; None if it is incomplete.

    Raises:
        WireError: it is not a valid frame.
    """
    start = HEADER.size
    if len(received) < start:
        return None
    head, body = sizes(received)
    end = start + head + body
    if len(received) < end:
        return None
    whole = bytes(received[start:end])
    del received[:end]
    return decode(whole[:head], whole[head:], shapes)


def _object(head: bytes) -> dict[str, Any]:
    try:
        text = head.decode()
        value, end = _from_json(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested too deep
        raise WireError(f"a frame whose JSON is invalid: {head[:100]!r}") from error
    if not isinstance(value, dict) or end != len(text):
        raise WireError(f"a frame whose JSON is not an object: {head[:100]!r}")
    return value  # pyright: ignore[reportUnknownVariableType]  # keys of JSON objects are strings


def _cut(body: bytes, lengths: object) -> tuple[bytes, ...]:
    if not is_numbers(lengths) or len(lengths) > MAX_BLOBS or sum(lengths) != len(body):
        raise WireError(f"a frame of {len(body)} bytes whose lengths are {str(lengths)[:100]!r}")
    blobs: list[bytes] = []
    start = 0
    for length in lengths:
        blobs.append(body[start : start + length])
        start += length
    return tuple(blobs)
