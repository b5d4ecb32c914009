"""Guesses the charset of text that is not valid UTF-8: by the library, ranked again. Blocking."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from rlm_mcp.service.contexts.spool import Spool
from rlm_mcp.service.contexts.wide import has_controls

# Bytes that a guess is made from: of a longer text, lines from all over it.
GUESSED_BYTES = 512 << 10
# Fewer bytes beyond ASCII are not enough to guess from.
MIN_STRANGE = 3
# What these few are in a text that is ASCII otherwise, such as one with a single name in it: a
# letter beside others, or a mark. Anything else is replaced as invalid bytes are.
_OF_FEW = "cp1252"
_LETTERS_OF_FEW = frozenset("äöüßéèêëàâáãåæçíìîïñóòôõøúùûýÄÖÜÉÈÊÀÂÁÃÅÆÇÍÎÑÓÔÕØÚÝ")

# Charsets that give the same text for the bytes at hand; the more common one is likelier to fit
# what else there is.
_COMMON = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("koi8_r", "cp866", "cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949"),
)
_LATIN = ("cp1252", "cp1250", "iso8859_2", "cp1254", "cp1257", "iso8859_16", "mac_roman", "cp850")
# Charsets for which the library takes Latin ones by mistake.
_LATIN_FAMILY = frozenset(
    {*_LATIN, "latin_1", "iso8859_1", "iso8859_3", "iso8859_4", "iso8859_9", "iso8859_10"}
    | {"iso8859_13", "iso8859_14", "iso8859_15", "cp437", "cp775", "cp852", "cp857", "cp858"}
    | {"cp1258", "cp865", "cp861", "cp860", "cp863", "hp_roman8", "mac_latin2", "mac_turkish"}
    | {"mac_iceland", "cp500", "cp1026", "cp1140", "cp037", "cp273", "kz1048", "ptcp154"}
)
# Letters beyond ASCII of languages in Latin script.
_ALPHABETS = tuple(
    frozenset(letters + letters.upper())
    for letters in (
        "ąćęłńóśźż",  # Polish
        "áäčďéěíľĺňóôŕřšťúůýž",  # Czech and Slovak
        "áéíóöőúüű",  # Hungarian
        "čćđšž",  # Croatian and Slovene
        "ăâîșțşţ",  # Romanian
        "äöüßéà",  # German
        "àâæçéèêëîïôœùûüÿ",  # French
        "áéíñóúüªº",  # Spanish
        "àáâãçéêíóôõúü",  # Portuguese
        "àèéìíîòóùú",  # Italian
        "åäöæøéü",  # Scandinavian and Finnish
        "áéíóúýþæöð",  # Icelandic
        "çğıöşüâîû",  # Turkish
        "āčēģīķļņšūž",  # Latvian
        "ąčęėįšųūž",  # Lithuanian
        "äõöüšž",  # Estonian
    )
)
_PUNCTUATION = frozenset("“”„‚‘’–—…«»‹›°§€£©®™•·¿¡\xa0\xad´½¼²³µ×¶†")
# Charsets of which another is a subset that texts are really in.
_USUAL = {"cp1125": "cp866", "koi8_t": "koi8_r", "shift_jis_2004": "cp932", "shift_jis": "cp932"}
MULTIBYTE = ("cp932", "euc_jp", "gb18030", "big5hkscs", "cp949", "johab")
# From this share on, lines of UTF-8 among others are a second charset and no accident.
_MIXED_SHARE, _MIXED_MULTIBYTE_SHARE = 0.1, 0.4
_MIN_MIXED_LINES = 3
_SHIFTING = ("iso2022_kr", "iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext")
# What these shift with.
SHIFT = b"\x1b$"
_BYTES_TO_AN_ERROR = 100
# So much more of another charset's letters must belong to one language to prefer it.
_MARGIN = 0.02


def guess_charset(sample: bytes) -> str:
    """Return Python's name of the charset that fits a sample best; empty where none does."""
    from charset_normalizer import from_bytes  # noqa: PLC0415  # few texts need it

    found = from_bytes(sample).best()
    if found is None:
        return _latin(sample, "") if _fits(sample) else _nearly(sample)
    alike = {found.encoding, *found.could_be_from_charset}
    name = next((one for one in _COMMON if one in alike), found.encoding)
    usual = _USUAL.get(name, name)
    name = usual if _errors(sample, usual) == 0 else name
    return codecs.lookup(_latin(sample, name) if name in _LATIN_FAMILY else name).name


@dataclass(frozen=True)
class Lines:
    """What the lines of a text are: those in UTF-8, and those to guess another charset from."""

    utf8: int
    other: int
    sample: bytes

    @classmethod
    def of(cls, spool: Spool) -> Self:
        """Look at every line."""
        counts, every = [0, 0], spool.lines()

        def others() -> Iterator[bytes]:
            for line in every:
                if line.isascii():
                    continue
                is_other = not is_mostly_utf8(line)
                counts[is_other] += 1
                if is_other:
                    yield line.rstrip(b"\n")

        sample = telling_lines(others(), spool.size)
        for _ in others():  # the rest, of which the sample needed no more
            pass
        return cls(counts[0], counts[1], sample)

    def charset(self, *, has_utf8: bool) -> str:
        """Guess; empty where there is too little to guess from, or nothing fits."""
        if has_controls(self.sample):
            return ""
        if strange_bytes(self.sample) < MIN_STRANGE:
            return "" if has_utf8 or self.utf8 else charset_of_few(self.sample)
        return guess_charset(self.sample)

    def has_utf8(self, charset: str, *, begins_so: bool) -> bool:
        """Whether lines of UTF-8 are no accident; short ones in two bytes a character may be."""
        if begins_so:
            return True
        share = _MIXED_SHARE if charset not in MULTIBYTE else _MIXED_MULTIBYTE_SHARE
        return self.utf8 >= max(_MIN_MIXED_LINES, share * (self.utf8 + self.other))


def charset_of_few(sample: bytes) -> str:
    """Return the charset in which one or two bytes beyond ASCII make sense; empty without one."""
    if any(0xC2 <= lead < 0xF5 and 0x80 <= trail < 0xC0 for lead, trail in pairwise(sample)):
        return ""  # the beginning of a character in UTF-8
    text = f" {sample.decode(_OF_FEW, 'replace')} "
    for before, char, after in zip(text, text[1:], text[2:], strict=False):
        is_within = any(one.isascii() and one.isalpha() for one in (before, after))
        if not (char.isascii() or char in _PUNCTUATION or (char in _LETTERS_OF_FEW and is_within)):
            return ""
    return _OF_FEW


def shifting_charset(head: bytes) -> str:
    """Return the charset of text in seven bits that shifts its character set; empty for others."""
    if SHIFT not in head or not head.isascii():
        return ""
    for name in _SHIFTING:
        try:
            codecs.getincrementaldecoder(name)().decode(head)
        except UnicodeDecodeError:
            continue
        return name
    return ""


def _nearly(sample: bytes) -> str:
    """Return the charset of several bytes that fits but for a few; a file may be cut or broken."""
    errors = {name: _errors(sample, name) for name in MULTIBYTE}
    best = min(errors, key=lambda name: errors[name])
    is_near = errors[best] * _BYTES_TO_AN_ERROR < strange_bytes(sample)
    return codecs.lookup(best).name if is_near else ""


def _errors(sample: bytes, charset: str) -> int:
    return sample.decode(charset, "replace").count("\ufffd")


def strange_bytes(data: bytes) -> int:
    """Count the bytes beyond ASCII."""
    return len(data) - len(data.decode("ascii", "ignore"))


def telling_lines(lines: Iterable[bytes], size: int) -> bytes:
    """Return lines with bytes beyond ASCII, from all over a text of a size, to guess from."""
    every = max(1, size // GUESSED_BYTES)
    kept = bytearray()
    strange = 0
    for line in lines:
        if line.isascii():
            continue
        strange += 1
        if strange % every == 0 or len(kept) < GUESSED_BYTES // 8:
            kept += line[:GUESSED_BYTES] + b"\n"
        if len(kept) > GUESSED_BYTES:
            break
    return bytes(kept)


def _latin(sample: bytes, name: str) -> str:
    """Choose among the charsets of Latin script: the one whose letters are those of a language.

    The library takes Polish and Czech in ISO-8859-2 for others.
    """
    known = [one for one in (name, *_LATIN) if one]
    scores = {one: _share_of_a_language(sample, one) for one in known}
    best = max(scores, key=lambda one: scores[one])
    return best if not name or scores[best] > scores[name] + _MARGIN else name


def _share_of_a_language(sample: bytes, charset: str) -> float:
    """The share of characters beyond ASCII that belong to the likeliest language."""
    text = sample.decode(charset, "replace")
    strange = [char for char in text if not char.isascii()]
    if not strange:
        return 0.0
    counts = [sum(char in letters for char in strange) for letters in _ALPHABETS]
    marks = sum(char in _PUNCTUATION for char in strange)
    return (max(counts) + 0.9 * marks) / len(strange)


def _fits(sample: bytes) -> bool:
    """Whether some Latin charset gives mostly letters of one language."""
    return max(_share_of_a_language(sample, one) for one in _LATIN) > 0.7  # most


def is_mostly_utf8(sample: bytes) -> bool:
    """Whether more characters beyond ASCII are whole UTF-8 than are broken."""
    text, _ = codecs.utf_8_decode(sample, "replace", False)  # its end may cut a character
    broken = text.count("\ufffd") - sample.count("\ufffd".encode())
    whole = len(text) - broken - len(text.encode("ascii", "ignore"))
    return broken == 0 or whole > broken
