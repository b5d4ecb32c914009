from __future__ import annotations

import gzip
import random

import pytest

from rlm_mcp.errors import InvalidInputError, TooLargeError
from rlm_mcp.service.contexts.decompression import CODINGS, PIECE_BYTES, Unpacker
from tests.packing import PACKED

DICE = random.Random(4)
TEXT = " ".join(str(DICE.random()) for _ in range(4_000)).encode()
BOMB = b"a" * (80 << 20)


def unpack(data: bytes, coding: str, *, piece: int = 10_000) -> bytes:
    unpacker, found = Unpacker(coding), bytearray()
    for at in range(0, len(data), piece):
        for part in unpacker.unpack(data[at : at + piece]):
            assert 0 < len(part) <= PIECE_BYTES
            found += part
    unpacker.end()
    return bytes(found)


@pytest.mark.parametrize("piece", [1, 4097, 10**9])
@pytest.mark.parametrize("coding", CODINGS)
def test_what_was_packed_comes_back(coding: str, piece: int) -> None:
    packed = PACKED[coding](TEXT)

    assert unpack(packed, coding, piece=piece) == TEXT


@pytest.mark.parametrize("piece", [7, 10**9])
@pytest.mark.parametrize("coding", CODINGS)
def test_one_packed_text_after_another_is_one_text(coding: str, piece: int) -> None:
    pack = PACKED[coding]
    packed = pack(b"one, ") + pack(b"") + pack(b"two")

    assert unpack(packed, coding, piece=piece) == b"one, two"


@pytest.mark.parametrize("piece", [1, 50, 10**9])
def test_zeros_after_the_end_are_passed_over(piece: int) -> None:
    assert unpack(gzip.compress(b"text") + b"\0" * 300, "gzip", piece=piece) == b"text"


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("harm", ["nothing", "half", "cut", "more", "plain"])
def test_what_is_not_whole_is_refused(harm: str, coding: str) -> None:
    packed = PACKED[coding](TEXT)
    harmed = {
        "nothing": b"",
        "half": packed[: len(packed) // 2],
        "cut": packed[:-1],
        "more": packed + b"rest",
        "plain": b"plain text, not packed at all",
    }

    with pytest.raises(InvalidInputError, match=f"not whole {coding}"):
        unpack(harmed[harm], coding)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_given_up_before_it_is_undone(coding: str) -> None:
    given: list[int] = []
    parts = Unpacker(coding).unpack(PACKED[coding](BOMB))

    with pytest.raises(TooLargeError, match="does not grow"):
        given.extend(len(part) for part in parts)

    assert sum(given) < len(BOMB) * 7 // 8


def test_a_window_that_takes_more_memory_than_there_should_be_is_refused() -> None:
    # A zstd frame whose header asks for a window of 2 GiB: magic number, no flags, exponent 21.
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([21 << 3]) + b"\x01\x00\x00"

    with pytest.raises(InvalidInputError, match="not whole zstd"):
        unpack(frame, "zstd")
