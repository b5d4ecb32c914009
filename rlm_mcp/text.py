"""Text made fit to be shown or sent: surrogates, shortening, near names, amounts."""

from __future__ import annotations

import codecs
import difflib
import math
import re
from collections.abc import Iterable, Sequence

_AFTER_PATH = re.compile(r"[?#]")
NAME_CHARS = 100  # of a name that model code made up, in a message


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot hold, by `?`."""
    return text if text.isascii() else utf8(text).decode()


def utf8(text: str) -> bytes:
    """Encode text; lone surrogates become `?`."""
    return text.encode("utf-8", "replace")


# So much is decoded at once: it is in the processor's cache then, and other threads of Python wait
# not long for their turn.
_DECODED_BYTES = 64 << 10


def count_utf8(data: bytes) -> tuple[int, int]:
    """Count the whole characters in UTF-8, and their bytes: the last one may be cut short.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    chars, used, view = 0, 0, memoryview(data)
    while used < len(data):
        text, size = codecs.utf_8_decode(view[used : used + _DECODED_BYTES], "strict", False)
        if not size:
            break
        chars, used = chars + len(text), used + size
    return chars, used


# Tokens of a character: four ASCII characters make one; a Han character or a kana is about one.
_ASCII_TOKENS, _WIDE_TOKENS = 0.25, 0.9


def estimated_tokens(chars: int, utf8_bytes: int) -> int:
    """Estimate the tokens of a text from its characters and its UTF-8 bytes, at least 1.

    A character of three bytes counts as a wide one, one of two bytes as half of one: that is
    0.25 for English, about 0.6 for Russian and 0.9 for Chinese.
    """
    wide = min(chars, max(0, utf8_bytes - chars) / 2)
    return max(1, math.ceil((chars - wide) * _ASCII_TOKENS + wide * _WIDE_TOKENS))


def width(text: str) -> int:
    """Return how many characters of English take as many tokens as a text does."""
    if text.isascii():
        return len(text)
    return width_of(len(text), len(text.encode("utf-8", "surrogatepass")))


def width_of(chars: int, utf8_bytes: int) -> int:
    """Return the width of a text with so many characters and bytes."""
    return round(estimated_tokens(chars, utf8_bytes) / _ASCII_TOKENS) if chars else 0


def preview(text: str, limit: int = 120) -> str:
    """Return one line of at most `limit` characters: white space folded, cut with an ellipsis."""
    # White space may shrink the text, hardly ever to an eighth.
    line = " ".join(without_surrogates(text[: limit * 8]).split())
    return line if len(line) <= limit else line[: max(0, limit - 1)] + "…"


def without_credentials(address: str) -> str:
    """Leave out of an address what may be secret: name, password, and all after the path."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "", address
    shown = _AFTER_PATH.split(rest, maxsplit=1)[0]
    if "@" in rest[len(shown) :]:  # a password that is not quoted may hold `?` or `#`
        return f"{scheme}{separator}***"
    return f"{scheme}{separator}{shown.rpartition('@')[2]}"


def cut(text: str, limit: int) -> str:
    """Keep the start of a text that is longer than `limit`, and say how much is left out."""
    if len(text) <= limit:
        return text
    note = f"\n[{len(text) - limit + 60} more characters]"
    return text[: limit - 60] + note


def names_in_line(names: Sequence[str], most: int = 30) -> str:
    """List names that model code made up, for a message: in one line, each cut, not too many."""
    shown = [preview(_printable(name), NAME_CHARS) for name in names[:most]]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown) + more


def _printable(text: str) -> str:
    text = text[: NAME_CHARS + 1]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return up to `count` of the known names that are most like `name`, the nearest first.

    Those that `name` is the beginning of come before all others: `temp` means `temperature`.
    """
    names = list(known)
    longer = [one for one in names if len(name) > 2 and one.startswith(name)]
    alike = difflib.get_close_matches(name[:200], names, n=count, cutoff=cutoff)
    return list(dict.fromkeys([*longer, *alike]))[:count]


# Money, times, counts and sizes as people read them. The page writes them so too
# (`web/src/format.js`); `tests/amounts.json` holds both to it.

_MOST_DECIMALS = 6


def dollars(usd: float) -> str:
    """Write USD with cents; below ten cents, with two digits that say something."""
    decimals = 2
    if 0 < usd < 1:
        decimals = min(max(decimals, 1 - math.floor(math.log10(usd))), _MOST_DECIMALS)
    whole, _, part = f"{usd:,.{decimals}f}".partition(".")
    return f"${whole}.{part[:2]}{part[2:].rstrip('0')}"


def duration(seconds: float) -> str:
    """Write seconds as `350 ms`, `3.6 s`, `31 s`, `2 min 5 s` or `1 h 10 min`."""
    if seconds < 0.0005:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = math.floor(whole / 60 + 0.5)
    return f"{minutes // 60:,} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """Write a number with what it counts: `1 turn`, `1,200 turns`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def byte_size(size: int) -> str:
    """Write a number of bytes as `812 B`, `64 kB`, `5.3 MB` or `1.2 GB`."""
    if size < 1000:
        return f"{size} B"
    if size < 999_500:
        return f"{math.floor(size / 1000 + 0.5)} kB"
    if size < 999_950_000:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e9:,.1f} GB"
