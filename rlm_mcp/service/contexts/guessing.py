"""Guesses the charset of text that is not valid UTF-8. Blocking.

Where its strange bytes stand among ASCII, by the sense that they make there; else by the library,
whose guess is ranked again.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable, Iterator
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
# letter beside others, or a mark, unless another charset makes more sense of them. Anything else is
# replaced as invalid bytes are.
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
# Letters beyond ASCII of languages in Latin script, without the rarest.
_ALPHABETS = {
    language: frozenset(letters + letters.upper())
    for language, letters in {
        "Polish": "ąćęłńóśźż",
        "Czech": "áčďéěíňóřšťúůýž",
        "Slovak": "áäčéíľňóôšťúýž",
        "Hungarian": "áéíóöőúüű",
        "Croatian": "čćđšž",
        "Romanian": "ăâîșțşţ",
        "German": "äöüßéà",
        "French": "àâçéèêëîïôœùûüÿ",
        "Spanish": "áéíñóúüªº",
        "Catalan": "àçèéíïòóúü",
        "Portuguese": "àáâãçéêíóôõúü",
        "Italian": "àèéìíîòóùú",
        "Scandinavian": "åäöæøéü",
        "Icelandic": "áéíóúýþæöð",
        "Turkish": "çğıİöşüâ",
        "Latvian": "āčēģīķļņšūž",
        "Lithuanian": "ąčęėįšųūž",
        "Estonian": "äõöüšž",
    }.items()
}
# Between which neighbours a letter is not this language's, but one of another charset.
_MISPLACED = {
    "Polish": re.compile(r"ń[aeiouyąęó]"),
    "French": re.compile(r"ç[^aouâ]"),
    "Spanish": re.compile(r"ñ[^aeiouáéíóú]"),
    "Catalan": re.compile(r"ç[éèií]"),
    "Portuguese": re.compile(r"ç[^aouáâãàóôõú]|ã[^oeis\W]|õ[^e]"),
    "Italian": re.compile(r"[àèìòù]\w"),
    "Estonian": re.compile(r"õ\W"),
    "Icelandic": re.compile(r"\wþ|\Wð"),
}
_PUNCTUATION = frozenset("“”„‚‘’–—…«»‹›°§€£©®™•·¿¡\xa0\xad´½¼²³µ×¶†")
_LETTERS = frozenset[str]().union(*_ALPHABETS.values()) - frozenset("ªº")
# Charsets of text that is mostly ASCII, and how much better each must fit to be preferred to the
# first one.
_OF_LONE = dict(
    [
        *[("cp1252", 0.0), ("iso8859_15", 0.02), ("cp1250", 0.03), ("iso8859_2", 0.04)],
        *[("cp1254", 0.03), ("cp1257", 0.04), ("mac_roman", 0.1), ("cp850", 0.1)],
        *[("cp437", 0.12), ("cp852", 0.12)],
    ]
)
# Two bytes before and behind each that is not ASCII; and the bytes beyond ASCII in a row.
_WINDOW, _RUN = re.compile(rb"(?s)(?=(..[\x80-\xff]..))"), re.compile(rb"[\x80-\xff]+")
# Where signs belong, with the two characters before and behind them.
_WELL_PLACED = tuple(
    (frozenset(signs), re.compile(rf"(?s){pattern}"))
    for signs, pattern in (
        ("€£¥¢", r".[\W\dkMS].(?:\d|\W\d|[mkb]?\W)|.\d.[^a-z]"),
        ("’‘´", r".[A-Za-z].[stdmlrv]|[^a-z][A-Za-z].\w|\w[A-Za-z.,!?].\W|.\W.\w"),
        ("“”‘‹›«»", r".[\W\d].\S|.\S.[\W\d]|.\s.\s"),
        ("„‚", r".[\W\d].[\w“]"),
        ("–—", r".\W.\W|.\d.\d|.\w.\s"),
        ("…", r".\w.\W|.\W.."),
        ("•·●▪", r".\W.\W"),
        ("°º", r".\d.|\d\s.|.[nN].[\W\d]|...[CF]\W"),
        ("ª", r".\d.\W|.[naNA].\W"),
        ("©", r".\W.\W"),
        ("®™", r".\w.\W"),
        ("§¶", r".\W.[\W\d]"),
        ("½¼¾±÷×", r".[\W\d].[\W\d]"),
        ("²³¹", r".[mxtRMCN\d)\]].\W"),
        ("¿¡", r".\W.[A-ZÁÉÍÓÚÑ]"),
        ("µ", r".[\W\d].[a-zA-Z]"),
        ("‰", r".\d.\W"),
        ("\xa0", r".[^a-z\s].|...[^a-z\s]"),
    )
)
# Signs that may stand within a word, those that may stand beside others, and words of one letter.
_WORD_SIGNS = frozenset("’‘´·–—…\xad\xa0")
_BESIDE_SIGNS = frozenset("’‘“”„…—–«»\xa0€£°")
_LONE_WORDS = frozenset("àáéèíóòúùåöæø")
# What the library takes short texts for, though no text has neither spaces nor line ends.
_WIDE = ("utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le")
# Charsets of which another is a subset that texts are really in.
_USUAL = {"cp1125": "cp866", "koi8_t": "koi8_r", "shift_jis_2004": "cp932", "shift_jis": "cp932"}
MULTIBYTE = ("cp932", "euc_jp", "gb18030", "big5hkscs", "cp949", "johab")
# From this share on, lines of UTF-8 among others are a second charset and no accident.
_MIXED_SHARE, _MIXED_MULTIBYTE_SHARE = 0.1, 0.4
_MIN_MIXED_LINES = 3
# A text whose strange bytes mostly stand alone, or few in a row, is in no charset of several bytes
# and in no other script; one with fewer than this share of them is mostly English.
_LONE_BYTES, _MIN_LONE_SHARE, _FEW_SHARE, _MARGIN_OF_FEW = 3, 0.85, 0.02, 0.1
# What a letter that is not the language's counts, and the least mean of a charset that fits.
_FOREIGN, _MIN_SENSE = 0.6, 0.6
# At most about so many different places of strange bytes are looked at, from all over the text. The
# more there are beyond the second number, the less better another charset must fit.
_MAX_WINDOWS, _CERTAIN_WINDOWS = 2000, 20
_SHIFTING = ("iso2022_kr", "iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext")
# What these shift with.
SHIFT = b"\x1b$"
_BYTES_TO_AN_ERROR = 100
# So much more of another charset's letters must belong to one language to prefer it.
_MARGIN = 0.02


def guess_charset(sample: bytes) -> str:
    """Return Python's name of the charset that fits a sample best; empty where none does."""
    if of_lone := charset_of_lone(sample):
        return of_lone
    from charset_normalizer import from_bytes  # noqa: PLC0415  # few texts need it

    found = from_bytes(sample, cp_exclusion=[] if b"\0" in sample else list(_WIDE)).best()
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
    if (of_lone := charset_of_lone(sample)) == _OF_FEW:
        return of_lone
    text = f" {sample.decode(_OF_FEW, 'replace')} "
    for before, char, after in zip(text, text[1:], text[2:], strict=False):
        is_within = any(one.isascii() and one.isalpha() for one in (before, after))
        if not (char.isascii() or char in _PUNCTUATION or (char in _LETTERS_OF_FEW and is_within)):
            return ""
    return of_lone or _OF_FEW


def charset_of_lone(sample: bytes) -> str:
    """Return the Latin charset in which strange bytes among ASCII make most sense; empty for none.

    A letter belongs beside letters, a capital behind no small one, and a sign where its kind does.
    """
    runs = _RUN.findall(sample)
    if sum(len(run) <= _LONE_BYTES for run in runs) < _MIN_LONE_SHARE * max(1, len(runs)):
        return ""
    windows = list(dict.fromkeys(_WINDOW.findall(b"\n\n" + sample + b"\n\n")))
    windows = windows[:: len(windows) // _MAX_WINDOWS + 1]
    of_few = _MARGIN_OF_FEW if sum(map(len, runs)) < _FEW_SHARE * len(sample) else 0.0
    certain = max(1.0, len(windows) / _CERTAIN_WINDOWS)
    scores = {
        name: _sense_in(name, windows) - (behind / certain + of_few if behind else 0.0)
        for name, behind in _OF_LONE.items()
    }
    best = max(scores, key=lambda name: scores[name])
    return codecs.lookup(best).name if scores[best] >= _MIN_SENSE else ""


def _sense_in(charset: str, windows: Collection[bytes]) -> float:
    """How much sense each strange character makes, from -1 to 1, in the likeliest language."""
    texts = [window.decode(charset, "replace") for window in windows]
    senses = [(_sense_of(text), text) for text in texts]
    total = sum(sense for sense, _ in senses)
    if total < _MIN_SENSE * len(senses):
        return -1.0
    letters_well = [(sense, text) for sense, text in senses if sense > 0 and text[2] in _LETTERS]
    foreign = min(
        sum(sense for sense, text in letters_well if not _is_of(language, text))
        for language in _ALPHABETS
    )
    return (total - (1 - _FOREIGN) * foreign) / len(senses)


def _is_of(language: str, text: str) -> bool:
    """Whether a language has the letter in the middle, and there."""
    misplaced = _MISPLACED.get(language)
    return text[2] in _ALPHABETS[language] and not (
        misplaced and misplaced.search(text[1:4].lower())
    )


def _sense_of(text: str) -> float:
    """How much sense the character in the middle makes, from -1 to 1."""
    before, char, after = text[1:4]
    if char not in _LETTERS:
        return _sense_of_sign(text)
    if before.isdigit() or after.isdigit():
        return -0.7
    if not (_is_in_word(text[:2], before) or _is_in_word(text[3:], after)):
        is_alone = not (before.isalpha() or after.isalpha())
        return 0.6 if is_alone and char.lower() in _LONE_WORDS else -0.5
    if char.isupper():
        is_misplaced = before.islower() or (before.isupper() and after.islower())
        return -1.0 if is_misplaced else 1.0
    return -0.5 if after.isupper() else 1.0


def _is_in_word(near: str, beside: str) -> bool:
    return beside.isalpha() and any(one.isascii() and one.isalpha() for one in near)


def _sense_of_sign(text: str) -> float:
    before, sign, after = text[1:4]
    if not all(one.isascii() or one.isalpha() or one in _BESIDE_SIGNS for one in (before, after)):
        return -1.0
    if any(sign in signs and pattern.match(text) for signs, pattern in _WELL_PLACED):
        return 1.0
    if sign in _WORD_SIGNS:
        return 0.3
    return 0.2 if sign in _PUNCTUATION and not (before.isalpha() and after.isalpha()) else -1.0


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
    counts = [sum(char in letters for char in strange) for letters in _ALPHABETS.values()]
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
