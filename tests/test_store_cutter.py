"""Bytes into chunks: compared with what Python's own decoder and str say of the same text."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from rlm_mcp.store.contexts.chunking import CHUNK_BYTES, Chunk, Cut, Document, Place, TextCutter

ALPHABET = "ab \n\r\té߀漢😀\ufeff\ufffd\u2028\0"


def cut(*documents: tuple[str, bytes], piece: int = 1 << 16) -> tuple[Cut, TextCutter]:
    cutter = TextCutter()
    chunks: list[Chunk] = []
    finished: list[Document] = []
    for name, data in documents:
        cutter.begin(name)
        for start in range(0, len(data), piece):
            cutter.feed(data[start : start + piece])
            taken = cutter.take()
            chunks, finished = [*chunks, *taken.chunks], [*finished, *taken.documents]
    cutter.finish()
    last, rest = cutter.take(), cutter.rest()
    chunks = [*chunks, *last.chunks, *([rest] if rest else [])]
    return Cut(chunks, [*finished, *last.documents]), cutter


def stored(result: Cut) -> str:
    return b"".join(chunk.data for chunk in result.chunks).decode()


def check_places(result: Cut) -> None:
    """Every chunk begins where the ones before it end, and decodes on its own."""
    byte = char = line = 0
    for chunk in result.chunks:
        assert chunk.start == Place(byte, char, line)
        assert 0 < len(chunk.data) <= CHUNK_BYTES
        text = chunk.data.decode()
        byte, char, line = byte + len(chunk.data), char + len(text), line + text.count("\n")


def test_one_document_gives_one_chunk_and_its_counts() -> None:
    result, cutter = cut(("a", "é\nb".encode()))
    assert result == Cut([Chunk(Place(), "é\nb".encode())], [Document(0, "a", Place(), 4, 3, 2)])
    assert (cutter.end, cutter.replaced, cutter.documents) == (Place(4, 3, 1), 0, 1)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", 0),
        ("a", 1),
        ("a\n", 1),
        ("a\nb", 2),
        ("\n", 1),
        ("\n\n", 2),
        ("a\r\nb\r\n", 2),
        ("a\rb", 1),
    ],
)
def test_a_line_ends_after_its_break_and_the_last_may_lack_one(text: str, lines: int) -> None:
    assert cut(("a", text.encode()))[0].documents[0].lines == lines


def test_documents_do_not_start_new_chunks() -> None:
    result, _ = cut(("a", b"one"), ("b", b""), ("c", b"\ntwo"))
    assert [chunk.data for chunk in result.chunks] == [b"one\ntwo"]
    assert result.documents == [
        Document(0, "a", Place(), 3, 3, 1),
        Document(1, "b", Place(3, 3, 0), 0, 0, 0),
        Document(2, "c", Place(3, 3, 0), 4, 4, 2),
    ]


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("before", range(5))
def test_a_character_on_the_edge_of_a_chunk_is_not_split(character: str, before: int) -> None:
    text = "x" * (CHUNK_BYTES - before) + character * 3
    result, _ = cut(("a", text.encode()))
    check_places(result)
    assert stored(result) == text
    assert len(result.chunks) == 2


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 1000])
def test_pieces_may_be_split_anywhere(piece: int) -> None:
    text = "a€😀\ufffd\r\n" * 50
    result, cutter = cut(("a", text.encode()), piece=piece)
    assert stored(result) == text
    assert cutter.replaced == 0


@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"a\xe2\x82",
        b"\xe2\x82\xef\xbf\xbd",
        b"\xed\xa0\x80",
        b"\xef\xbb\xff",
        b"ok \xc3( \xf0\x9f\x98",
        b"\xef\xbf\xbd\xff\xef\xbf\xbd",
    ],
)
def test_bytes_that_are_no_utf8_become_replacements_that_are_counted(
    data: bytes, piece: int
) -> None:
    result, cutter = cut(("a", data), piece=piece)
    expected = data.decode("utf-8", "replace")
    assert stored(result) == expected
    assert cutter.replaced == expected.count("\ufffd") - data.count(b"\xef\xbf\xbd")


def test_a_half_character_ends_with_its_document() -> None:
    result, cutter = cut(("a", b"\xe2\x82"), ("b", b"\xac"))
    assert stored(result) == "\ufffd\ufffd"
    assert [document.chars for document in result.documents] == [1, 1]
    assert cutter.replaced == 2


@pytest.mark.parametrize("piece", [1, 2, 1000])
def test_a_byte_order_mark_is_dropped_at_the_start_of_every_document_and_only_there(
    piece: int,
) -> None:
    mark = "\ufeff"
    result, cutter = cut(
        ("a", (mark + "x" + mark).encode()),
        ("b", mark.encode()),
        ("c", (mark * 2).encode()),
        piece=piece,
    )
    assert stored(result) == "x" + mark + mark
    assert [document.chars for document in result.documents] == [2, 0, 1]
    assert cutter.replaced == 0


def test_lone_surrogates_in_names_become_question_marks() -> None:
    assert cut(("a\udcff", b"x"))[0].documents[0].name == "a?"


def test_many_empty_documents_make_no_chunks() -> None:
    result, _ = cut(*((str(index), b"") for index in range(100)))
    assert result.chunks == []
    assert [document.position for document in result.documents] == list(range(100))


@pytest.mark.parametrize("alphabet", [ALPHABET, "ab\n", "é漢😀\n"])
def test_whole_characters_whose_number_is_known_are_cut_as_all_others_are(alphabet: str) -> None:
    dice = random.Random(7)
    texts = ["".join(dice.choices(alphabet, k=k)) for k in (1, 900_000, 3, 400_000, 700_000)]
    decoded, counted = TextCutter(), TextCutter()
    for cutter in (decoded, counted):
        cutter.begin("a")
    for text in texts:
        decoded.feed(text.encode())
        counted.feed_whole(text.encode(), len(text))
    decoded.feed("é".encode()[:1])
    counted.feed("é".encode()[:1])
    decoded.feed("é".encode()[1:] + b"end")
    counted.feed_whole(b"\xa9end", 4)
    for cutter in (decoded, counted):
        cutter.finish()

    assert (counted.end, counted.sha256, counted.rest()) == (
        decoded.end,
        decoded.sha256,
        decoded.rest(),
    )
    result = counted.take()
    check_places(result)
    assert result == decoded.take()


def random_pieces(data: bytes, dice: random.Random) -> Iterator[bytes]:
    while data:
        size = dice.choice([1, 3, 100, 70_000, 1 << 20])
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize("seed", range(6))
def test_random_text_in_random_pieces_put_down_and_taken_up_is_the_same_text(seed: int) -> None:
    dice = random.Random(seed)
    text = "".join(dice.choices(ALPHABET, k=dice.choice([10, 1000, 900_000])))
    cutter, chunks = TextCutter(), dict[int, Chunk]()
    cutter.begin("a")
    for piece in random_pieces(text.encode(), dice):
        cutter.feed(piece)
        chunks |= {chunk.start.byte: chunk for chunk in cutter.take().chunks}
        if dice.random() < 0.3:
            tail = cutter.rest()
            chunks |= {tail.start.byte: tail} if tail else {}
            cutter = TextCutter.resumed(cutter.state(), tail)
    cutter.finish()
    rest = cutter.rest()
    chunks |= {rest.start.byte: rest} if rest else {}
    result = Cut([chunks[start] for start in sorted(chunks)], cutter.take().documents)
    check_places(result)
    expected = text.removeprefix("\ufeff")
    assert stored(result) == expected
    assert result.documents[0].chars == len(expected)
