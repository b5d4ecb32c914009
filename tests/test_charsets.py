from __future__ import annotations

import codecs

import pytest

from rlm_mcp.errors import InvalidInputError
from rlm_mcp.service.contexts import spool
from rlm_mcp.service.contexts.charsets import SAMPLE_BYTES, CharsetDecoder

GERMAN = "Der Mörder aß gerne süße Äpfel und öffnete die Tür.\n"
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю.\n"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
CHINESE = "中华人民共和国万岁，世界人民大团结万岁。今天天气很好。\n"
KOREAN = "동해 물과 백두산이 마르고 닳도록 하느님이 보우하사 우리나라 만세.\n"
PLAIN = "A first line that is plain.\n" * 50


def decode(data: bytes, told: str = "", *, piece: int = 1000) -> tuple[str, CharsetDecoder]:
    decoder = CharsetDecoder(told)
    pieces = [decoder.feed(data[at : at + piece]) for at in range(0, len(data), piece)]
    return b"".join([*pieces, *decoder.end()]).decode("utf-8", "replace"), decoder


@pytest.mark.parametrize("piece", [1, 3, 1000, 10**9])
@pytest.mark.parametrize(
    ("text", "charset"),
    [
        (GERMAN * 20, "cp1252"),
        (RUSSIAN * 20, "cp1251"),
        (RUSSIAN * 20, "koi8-r"),
        (JAPANESE * 20, "cp932"),
        (JAPANESE * 20, "euc_jp"),
        (CHINESE * 20, "gb18030"),
        (KOREAN * 20, "cp949"),
        (PLAIN * 50 + GERMAN * 20, "cp1252"),
        (GERMAN * 20, "utf-16"),
        (RUSSIAN * 20, "utf-32"),
        (PLAIN, "utf-16-le"),
        (PLAIN, "utf-16-be"),
        (RUSSIAN * 20, "utf-16-le"),
        (RUSSIAN * 20, "utf-16-be"),
    ],
)
def test_a_charset_is_found_out(text: str, charset: str, piece: int) -> None:
    decoded, decoder = decode(text.encode(charset), piece=piece)

    assert decoded == text
    assert (decoder.is_guessed, decoder.replaced) == (True, 0)


@pytest.mark.parametrize("piece", [1, 3, 10**9])
@pytest.mark.parametrize("text", ["", "a", PLAIN, GERMAN, JAPANESE * 10, PLAIN + "😀"])
def test_utf_8_passes_as_it_is(text: str, piece: int) -> None:
    decoded, decoder = decode(text.encode(), piece=piece)

    assert (decoded, decoder.charset, decoder.is_guessed) == (text, "utf-8", False)


def test_a_broken_byte_in_utf_8_makes_no_other_charset_of_it() -> None:
    data = (GERMAN * 20).encode() + b"\xff\n" + (GERMAN * 20).encode()

    assert decode(data)[0] == GERMAN * 20 + "\ufffd\n" + GERMAN * 20


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", [CHINESE, JAPANESE, KOREAN, "Σφάλμα στο αρχείο.\n", "קובץ לא נמצא.\n"]
)
def test_utf_16_without_a_mark_is_known_in_scripts_that_have_no_zeros(
    text: str, charset: str
) -> None:
    assert decode((text * 20).encode(charset))[0] == text * 20


@pytest.mark.parametrize("text", ["台北市信義區信義路五段7號", "안녕하세요, 세계."])
def test_a_few_words_without_a_zero_are_in_no_wide_charset(text: str) -> None:
    for charset in ("big5", "euc_kr"):
        data = text.encode(charset, "ignore")

        assert "utf-16" not in decode(data)[1].charset


def test_what_is_no_text_passes_as_it_is() -> None:
    data = bytes(range(256)) * 300
    decoder = CharsetDecoder()

    assert b"".join([decoder.feed(data), *decoder.end()]) == data


@pytest.mark.parametrize("told", ["windows-1252", "ISO-8859-15", "latin1"])
def test_the_charset_that_is_told_is_taken(told: str) -> None:
    decoded, decoder = decode("größer".encode("cp1252"), told)

    assert (decoded, decoder.is_guessed) == ("größer", False)


def test_bytes_that_a_charset_has_not_are_replaced_and_counted() -> None:
    decoded, decoder = decode(b"a\xffb\x81", "ascii")

    assert (decoded, decoder.replaced) == ("a\ufffdb\ufffd", 2)


@pytest.mark.parametrize("told", ["klingon", "rot13", "idna", "hex", "a" * 1000, "x\0y"])
def test_a_charset_that_there_is_not_is_refused_by_name(told: str) -> None:
    with pytest.raises(InvalidInputError, match="There is no charset"):
        CharsetDecoder(told)


def test_ascii_waits_for_nothing_and_valid_utf_8_for_no_more_than_a_sample() -> None:
    decoder = CharsetDecoder()
    assert decoder.feed(b"plain text") == b"plain text"
    assert decoder.pass_quickly(b"more of it") == (b"more of it", 10)
    assert decoder.pass_quickly("ü".encode()) is None
    german = f"ü{GERMAN}".encode() * (SAMPLE_BYTES // len(GERMAN) + 1)
    assert decoder.feed(german[:20]) == b""

    given = decoder.feed(german[20:])

    assert given == german
    assert decoder.feed("ü".encode()[:1]) == b""
    assert decoder.pass_quickly("ü".encode()[1:] + "ä".encode()[:1]) == ("ü".encode(), 1)
    assert decoder.pass_quickly(b"\xff") is None
    assert b"".join([decoder.feed("ä".encode()[1:]), *decoder.end()]) == "ä".encode()


def test_what_is_announced_as_utf_8_passes_without_being_decoded() -> None:
    assert CharsetDecoder("utf8").pass_quickly(b"a\xff") == (b"a\xff", None)
    assert CharsetDecoder("cp1252").pass_quickly(b"a") is None


def test_a_mark_alone_is_an_empty_text() -> None:
    assert decode(codecs.BOM_UTF16_LE)[0] == ""


PLAIN_LINE = "2026-01-01 INFO request handled by worker 3\n"


@pytest.mark.parametrize("piece", [7, 10_000, 10**9])
def test_accents_that_come_late_decide_all_the_same(piece: int) -> None:
    text = PLAIN_LINE * 4000 + GERMAN * 200

    decoded, decoder = decode(text.encode("cp1252"), piece=piece)

    assert (decoded == text, decoder.charset) == (True, "cp1252")


@pytest.mark.parametrize("piece", [7, 10_000, 10**9])
def test_a_log_of_two_charsets_is_decoded_line_by_line(piece: int) -> None:
    lines = [GERMAN.encode("utf-8" if number % 3 else "cp1252") for number in range(3000)]

    decoded, decoder = decode(b"".join(lines), piece=piece)

    assert (decoded == GERMAN * 3000, decoder.charset) == (True, "utf-8, cp1252")


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        ("Zażółć gęślą jaźń. Chrząszcz brzmi w trzcinie, błąd użytkownika.\n", "iso8859-2"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy, chyba při načítání.\n", "iso8859-2"),
        ("Zażółć gęślą jaźń. Chrząszcz brzmi w trzcinie, błąd użytkownika.\n", "cp1250"),
        ("Ошибка при открытии файла, попробуйте позже.\n", "cp866"),
        (JAPANESE, "iso2022_jp"),
        (PLAIN, "utf-32-le"),
        (PLAIN, "utf-32-be"),
    ],
)
def test_a_charset_is_found_among_many_plain_lines(text: str, charset: str) -> None:
    whole = (PLAIN_LINE * 3 + text) * 60

    decoded, decoder = decode(whole.encode(charset))

    assert (decoded == whole, decoder.charset) == (True, charset)


def test_what_waits_for_its_end_is_in_a_file_when_it_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "MEMORY_BYTES", 1000)

    assert decode((GERMAN * 500).encode("cp1252"))[0] == GERMAN * 500
