"""The private parts of CPython that the sandbox relies on: the test here fails first if one moves.

| part | used in |
|---|---|
| layout of `PyASCIIObject`: reference count, type, length, hash, state, then the characters | `child/mapped_str` |
| a hash that was not computed yet is -1 | `child/mapped_str` |
| a reference count of 2**29 is an ordinary number, and goes up and down | `child/mapped_str` |
| `zoneinfo._common.load_tzdata(key)` returns an open binary file | `child/preload` |
"""  # noqa: E501  # a table

from __future__ import annotations

import ctypes
import importlib
import inspect
import sys

import pytest

from rlm_mcp.sandbox.child.mapped_str import _TESTED  # pyright: ignore[reportPrivateUsage]

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] not in _TESTED, reason="texts are decoded by this interpreter"
)

TEXT = "some characters that are only ASCII"


def _words_of(text: str) -> tuple[int, int, int, int]:
    return (ctypes.c_ssize_t * 4).from_address(id(text))[:4]  # pyright: ignore[reportReturnType]


def test_an_ascii_string_is_a_header_followed_by_its_characters() -> None:
    header = sys.getsizeof("") - 1
    text = TEXT.lower()
    assert ctypes.string_at(id(text) + header, len(text) + 1) == text.encode() + b"\0"


def test_the_header_holds_references_type_length_and_hash_in_this_order() -> None:
    text = TEXT.upper()
    _, kind, length, unset_hash = _words_of(text)
    assert (kind, length, unset_hash) == (id(str), len(text), -1)
    computed = hash(text)
    assert _words_of(text)[3] == computed


def test_a_large_reference_count_is_still_counted() -> None:
    text = TEXT.title()
    references = ctypes.c_ssize_t.from_address(id(text))
    before = references.value
    references.value = 1 << 29
    more = [text, text]
    assert references.value == (1 << 29) + 2
    del more
    assert references.value == 1 << 29
    references.value = before


def test_time_zones_are_loaded_through_the_function_that_is_replaced() -> None:
    load = importlib.import_module("zoneinfo._common").load_tzdata
    assert list(inspect.signature(load).parameters) == ["key"]
