"""How long a provider asks to wait: in headers of every kind, in fields, in words."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# Numbers are bounded: a refusal may quote a prompt, and long digits would take the square of their
# length.
_NUMBER = r"(\d{1,12}(?:\.\d{1,20})?)"
_PART = re.compile(
    rf"{_NUMBER}\s*(ms|milliseconds?|s|sec(?:ond)?s?|m|min(?:ute)?s?|h|hours?|d(?:ays?)?)"
)
_LENGTH = rf"((?:{_PART.pattern}(?:\s*,)?(?:\s*and\b)?\s*)+)(?![a-z])"
_LEAD = r"(?:try again|retry|retry-after|wait|available|resets?|cool-?down)\b[^.\d]{0,40}?"
_IN_WORDS = re.compile(rf"{_LEAD}{_LENGTH}", re.IGNORECASE)
_ONE = re.compile(rf"{_LEAD}\b(?:an?|one) (second|minute|hour)\b", re.IGNORECASE)
_CLOCK = re.compile(rf"{_LEAD}\b(\d{{1,2}}):(\d\d):(\d\d)\b", re.IGNORECASE)
# "Retry after: 30", where nothing else is counted.
_BARE = re.compile(
    rf"(?:try again|retry)[- ](?:after|in):? {_NUMBER}(?=[.,;)]?(?:\s*$|\s*\n))", re.IGNORECASE
)
_ISO = re.compile(r"P(?:T)(?=\d)", re.IGNORECASE)
_CHINESE_PART = re.compile(rf"{_NUMBER}\s*(秒|分钟|分|小时|時間)")
_CHINESE = re.compile(rf"((?:{_CHINESE_PART.pattern})+)\s*[后後]")
_CHINESE_SECONDS = {"秒": 1.0, "分钟": 60.0, "分": 60.0, "小时": 3600.0, "時間": 3600.0}
_MOMENT = re.compile(
    r"(?:try again|retry|available|access|resets?)\b[^.\d]{0,40}?"
    r"(\d{4}-\d\d-\d\d)[T ](?:at )?(\d\d:\d\d(?::\d\d)?)(?:\.\d+)? ?(?:Z|UTC|GMT|\+00:?00)",
    re.IGNORECASE,
)
_IN_ONE = re.compile(r"(\w{1,40})=(\d{1,19})")  # `limit=10, remaining=0, reset=5`, and `r=0;t=5`
_RETRY_AFTER = ("retry-after", "retry-after-seconds")
_EPOCH = 1_000_000_000  # larger numbers are moments since 1970, and not lengths
_EPOCH_MS = _EPOCH * 1000


def told_in_headers(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that the headers of a refusal ask to wait; names are in lower case.

    `Retry-After` (RFC 9110, 10.2.3) and its kin in milliseconds come first, then the moments when
    limits are reset: of those the latest whose limit is used up, since the others do not matter.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        with suppress(KeyError, ValueError):
            return _sane(float(headers[name]) / 1000)
    for name in ("retry-after", *(each for each in headers if each.endswith(_RETRY_AFTER))):
        told = parse_retry_after(headers.get(name), now)
        if told is not None:
            return told
    waits = [*_resets(headers, now), *_reset_in_one(headers.get("ratelimit", ""))]
    return max(waits, default=None)


def told_in_words(text: str, now: datetime | None = None) -> float | None:
    """Return the seconds that a sentence such as "please retry in 1m30s" asks to wait.

    A moment counts where its zone is told.
    """
    if found := _IN_WORDS.search(text):
        return seconds_of(found[1])
    if found := _MOMENT.search(text):
        with suppress(ValueError):  # such as a month 13
            return _until(datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00"), now)
    if found := _CHINESE.search(text):
        parts = _CHINESE_PART.finditer(found[1])
        return sum(float(part[1]) * _CHINESE_SECONDS[part[2]] for part in parts)
    return _told_otherwise(text)


def _told_otherwise(text: str) -> float | None:
    """Read what has no unit of its own: 00:01:30, "one minute", "retry after 30"."""
    if found := _CLOCK.search(text):
        hours, minutes, seconds = map(int, found.groups())
        return 3600.0 * hours + 60.0 * minutes + seconds
    if found := _ONE.search(text):
        return _UNIT_SECONDS[_unit(found[1].lower())]
    found = _BARE.search(text)
    return float(found[1]) if found else None


def seconds_of(length: str) -> float | None:
    """Read a length of time such as `18s`, `6m0s`, `1h2m`, `120ms`."""
    parts = list(_PART.finditer(length.lower()))
    if not parts:
        return None
    return sum(float(part[1]) * _UNIT_SECONDS[_unit(part[2])] for part in parts)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Read a `Retry-After` header, seconds or a date, as seconds from now.

    Some servers send a length with its unit, or a moment as their other headers have it.
    """
    return None if value is None else _moment_or_length(value, now)


def _resets(headers: Mapping[str, str], now: datetime | None) -> Iterator[float]:
    for name, value in headers.items():
        if "reset" not in name or "ratelimit" not in name.replace("rate-limit", "ratelimit"):
            continue
        left = headers.get(name.replace("reset", "remaining"), "0")
        wait = _moment_or_length(value, now)
        if wait is not None and left.strip() in {"", "0", "0.0"}:
            yield wait


def _reset_in_one(value: str) -> Iterator[float]:
    """Read the one header of a draft of the IETF, in its earlier and its later form."""
    told = {name: float(number) for name, number in _IN_ONE.findall(value)}
    wait = told.get("reset", told.get("t"))
    if wait is not None and not told.get("remaining", told.get("r", 0.0)):
        yield wait


def _moment_or_length(value: str, now: datetime | None) -> float | None:
    with suppress(ValueError):
        number = float(value)
        if number < _EPOCH or not math.isfinite(number):
            return _sane(number)
        at = number / 1000 if number >= _EPOCH_MS else number
        return max(0.0, at - (now.timestamp() if now else time.time()))
    with suppress(ValueError):
        return _until(datetime.fromisoformat(value), now)
    with suppress(ValueError):
        return _until(parsedate_to_datetime(value), now)
    return seconds_of(_ISO.sub("", value))


def _until(moment: datetime, now: datetime | None) -> float:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _unit(word: str) -> str:
    return "ms" if word.startswith(("ms", "milli")) else word[0]


def _sane(seconds: float) -> float | None:
    return max(0.0, seconds) if math.isfinite(seconds) else None
