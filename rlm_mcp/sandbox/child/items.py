"""`ask_each` and `number_near`: questions about each line or item. Runs in the REPL's process.

Made for weak models, which seldom write a loop over sub-calls, and split lines at the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rlm_mcp.sandbox.child.calls import CallDesk, FailedCall, Request, SubCallError

QUOTED_CHARS = 200

_DIGITS = r"\d+(?:\.\d+)?"
_PLAIN = re.compile(rf"(?<![\w.])-{_DIGITS}|{_DIGITS}")
_GROUPED = re.compile(rf"(?<![\w.,])-?\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?(?![\d,])|{_PLAIN.pattern}")
_COMMA_OF_TABLE = re.compile(r"[^\d\s],\S|,[^\d\s]")
_YES = re.compile(r"\W*yes\b", re.IGNORECASE)
# Between a key and its number, as in `temp=19.3` or `"ms": 12`.
_AFTER_KEY = re.compile(r"[\"']?\s*[=:]\s*[\"']?")


def ask_each(desk: CallDesk, items: Any, question: Any) -> list[Any]:  # from model code
    """Ask a model a yes-or-no question about every item, and return the items with yes.

    The text comes first and the question last: weak models judge better so. A str is asked about
    line by line. Prints how many said yes.

    Raises:
        SubCallError: every call failed.
    """
    if isinstance(items, str) and not isinstance(question, str):
        items, question = question, items
    asked = _items(items)
    ask = str(question).strip()
    if not ask.lower().endswith("yes or no."):
        ask = f"{ask} Answer only yes or no."
    prompts = [f"Text: {item}\n\n{ask}" for item in asked]
    replies = desk.ask_all([Request("llm_query")] * len(prompts), prompts)
    failed = [reply for reply in replies if isinstance(reply, FailedCall)]
    if failed and len(failed) == len(asked):
        raise SubCallError(str(failed[0]))
    found = [
        item
        for item, reply in zip(asked, replies, strict=True)
        if not isinstance(reply, FailedCall) and _YES.match(reply)
    ]
    lost = f"; {len(failed)} could not be asked: {failed[0]}" if failed else ""
    print(f"ask_each: yes for {len(found)} of {len(asked)}{lost}")  # noqa: T201  # into the cell's output
    return found


def _items(items: Any) -> list[Any]:
    given: Iterable[Any] = items.splitlines() if isinstance(items, str) else items
    return [item for item in given if not isinstance(item, str) or item.strip()]


def number_near(line: object, word: object) -> int | float:
    """Return the number beside a word of a line: `number_near("done in 12 ms", "ms")` is 12.

    After a key (`temp=19.3`, `"ms": 12`) it is the number that follows, else the nearest one.

    Raises:
        ValueError: the line has no such word, or no number.
    """
    text, sought = str(line), str(word)
    shown = text if len(text) <= QUOTED_CHARS else f"{text[:QUOTED_CHARS]}…"
    # The commas of a table are not those of 1,250.
    pattern = _PLAIN if _COMMA_OF_TABLE.search(text) else _GROUPED
    numbers = list(pattern.finditer(text))
    places = _places(text, sought)
    if not places:
        raise ValueError(f"the word {sought!r} is not in this line: {shown!r}")
    if not numbers:
        raise ValueError(f"there is no number in this line: {shown!r}")
    _, nearest = min(
        (_distance(text, place, number), number.start()) for place in places for number in numbers
    )
    return _value(next(number.group() for number in numbers if number.start() == nearest))


def _places(text: str, word: str) -> list[tuple[int, int]]:
    """Find the word as a whole, else inside of other words."""
    sought = re.escape(word.strip() or word)
    for pattern in (rf"(?<!\w){sought}(?!\w)", sought):
        found = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
        if found:
            return found
    return []


def _distance(text: str, place: tuple[int, int], number: re.Match[str]) -> int:
    """Count the characters between word and number; one that follows a key comes before all."""
    start, end = place
    if number.end() <= start:
        return start - number.end() + 1
    between = text[end : max(end, number.start())]
    ends_key = text[start:end].rstrip().endswith(("=", ":")) and not between.strip(" \"'")
    return -1 if ends_key or _AFTER_KEY.fullmatch(between) else len(between) + 1


def _value(number: str) -> int | float:
    plain = number.replace(",", "")
    return float(plain) if "." in plain else int(plain)
