"""Guesses the charset of text that is not valid UTF-8: by the library, ranked again. Blocking."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

# Bytes that a guess is made from: of a longer text, lines from all over it.
GUESSED_BYTES = 512 << 10
# Fewer bytes beyond ASCII are not enough to guess from; they are replaced as invalid ones are.
MIN_STRANGE = 3

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
