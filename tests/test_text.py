"""Texts in memory, as they are handed to a REPL."""

from __future__ import annotations

import tracemalloc

import pytest

from rlm_mcp.sandbox.host.text import CHUNK_CHARS, TextContext

LONG = "ab" * CHUNK_CHARS


@pytest.mark.parametrize(
    "documents",
    [
        [],
        [""],
        ["one", "", "two"],
        ["größe" * 10, "\U0001f40b"],
        ["half \ud83d", "\udc0b of a pair"],
        ["x" * (CHUNK_CHARS - 1) + "ö" * 5, "y"],
        ["short"] * 5000,
    ],
)
def test_the_pieces_are_the_documents_in_order(documents: list[str]) -> None:
    source = TextContext.of(documents)
    encoded = [document.encode("utf-8", "replace") for document in documents]
    assert b"".join(source.chunks()) == b"".join(encoded)
    assert list(source.byte_lengths) == list(map(len, encoded))
    assert list(source.char_lengths) == list(map(len, documents))


def test_a_long_text_is_never_there_twice() -> None:
    text = LONG * 8
    source = TextContext.of(text)
    tracemalloc.start()
    try:
        total = sum(map(len, source.chunks()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == source.byte_lengths[0] == len(text)
    assert peak < len(text) / 2


def test_short_documents_come_in_few_pieces() -> None:
    assert len(list(TextContext.of(["word "] * 10_000).chunks())) == 1


def test_equal_short_texts_are_shared_and_others_are_not() -> None:
    keys = [TextContext.of(text).key for text in ("a", "a", "b", ["a"], ["", "a"], ["a", ""])]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5


def test_a_long_text_has_a_key_of_its_own_that_stays() -> None:
    one, other = TextContext.of(LONG), TextContext.of(LONG)
    assert one.key == one.key
    assert one.key != other.key
