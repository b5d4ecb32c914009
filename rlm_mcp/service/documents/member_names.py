"""Names within ZIP archives, which are in the charset of the machine that packed them. Pure.

Few programs say that a name is in UTF-8, and before that each country's Windows wrote its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from zipfile import ZipInfo

_IS_UTF8 = 0x800  # a flag of a member
_USUAL = "cp437"  # by the format; `zipfile` reads names so
# Charsets, from the one that fits least else, with what names in them hold beyond ASCII.
_CHARSETS = (
    ("utf_8", re.compile(r".")),
    ("cp932", re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\u3005-\u3007]")),
    ("euc_kr", re.compile(r"[\uac00-\ud7a3]")),
    ("gb2312", re.compile(r"[\u4e00-\u9fff]")),
    ("big5", re.compile(r"[\u4e00-\u9fff]")),
    ("cp866", re.compile(r"[\u0410-\u044f\u0401\u0451\u2116]")),
    ("cp437", re.compile(r"[\u00a0-\u00ff]")),
    ("cp850", re.compile(r"[\u00a0-\u00ff]")),
)
_LATIN = ("utf_8", "cp437", "cp850")
# What may stand among these: marks and letters of full width, and nothing else.
_MARKS = re.compile(r"[\u3000-\u303f\uff01-\uff5e\u2010-\u2026\u30fb\u30fc]")
# What words in Latin script with an accent become in another charset.
_BESIDE_LATIN = re.compile(r"[A-Za-z][^\x00-\x7f]|[^\x00-\x7f][A-Za-z]")
_TWO = re.compile(r"[^\x00-\x7f]{2}")


def charset_of_names(members: Iterable[ZipInfo]) -> str:
    """Guess the charset of the names that do not say it, from all of them."""
    names = [_raw(one) for one in members if _is_unknown(one)]
    whole = b"\n".join(names)
    return next((name for name, letters in _CHARSETS if _fits(whole, name, letters)), _USUAL)


def name_of(member: ZipInfo, charset: str) -> str:
    """Return the name of a member; `charset` is that of the names that do not say it."""
    return _raw(member).decode(charset, "replace") if _is_unknown(member) else member.filename


def _is_unknown(member: ZipInfo) -> bool:
    """Whether the charset of a name is not told, by its flag or by a field with the name itself."""
    if member.flag_bits & _IS_UTF8 or member.orig_filename.isascii():
        return False
    return member.filename.replace("\\", "/") == _as_read(member).replace("\\", "/")


def _as_read(member: ZipInfo) -> str:
    return member.orig_filename.partition("\0")[0]


def _raw(member: ZipInfo) -> bytes:
    return _as_read(member).encode(_USUAL, "replace")


def _fits(names: bytes, charset: str, letters: re.Pattern[str]) -> bool:
    try:
        text = names.decode(charset)
    except UnicodeDecodeError:
        return False
    strange = [char for char in text if not char.isascii()]
    typical = sum(letters.match(char) is not None for char in strange)
    marks = sum(_MARKS.match(char) is not None for char in strange)
    is_mixed = charset not in _LATIN and _BESIDE_LATIN.search(text) is not None
    is_mixed = is_mixed and (charset == "cp866" or _TWO.search(text) is None)
    return typical > marks and typical + marks >= len(strange) and not is_mixed
