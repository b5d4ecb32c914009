"""A first look at real lines of a text, for weak models: how they look, and what their parts are.

`SAMPLE_CODE` is run in the REPL and prints what `TextSample.read` reads; all else is pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from rlm_mcp.sandbox.types import ContextSource
from rlm_mcp.text import cut, without_surrogates

TextShape = Literal["items", "lines", "documents"]
"""`items` are few and short, so that each can be judged; `lines` are many, for code to go through;
`documents` have several lines each."""

MAX_ITEMS = 60
MAX_ITEMS_CHARS = 30_000
MAX_SHOWN_CHARS = 160
MAX_PARTS = 12
MAX_WORDS = 6  # of lines that only white space divides
MIN_PARTS = 3
_SEPARATORS = ("; ", ";", "\t", " | ", "|", ", ", ",")
_PICKED_CHARS = 2_000

# Looks at twelve lines at most, and reads no more of a long text than it has to. Its names are gone
# afterwards.
SAMPLE_CODE = f"""\
def _sample(context):
    import json
    def spread(found):
        count = len(found)
        places = sorted({{0, 1, *(count * n // 10 for n in range(1, 10)), count - 1}})
        return [found[at][:{_PICKED_CHARS}] for at in places if 0 <= at < count]
    items = False
    if not isinstance(context, str):
        found = [each.strip() for each in context]
        items = not any("\\n" in each for each in found)
        lines, picked = 0, spread(found)
    elif len(context) <= 500_000:
        found = [line for line in context.splitlines() if line.strip()]
        lines, picked = len(found), spread(found)
    else:
        lines, picked = context.count("\\n") + 1, []
        for place in [len(context) * n // 10 for n in range(10)] + [len(context) - 9_000]:
            near = context[place:place + 9_000].splitlines()
            near = [line[:{_PICKED_CHARS}] for line in near if line.strip()]
            picked += near[1:2] if place else near[:2]
    print(json.dumps({{"lines": lines, "picked": picked, "items": items}}))
_sample(context)
del _sample
"""


@dataclass(frozen=True)
class TextSample:
    """Some lines of a text, in order: the first two, the last, and others in between.

    `lines` is how many there are, 0 for a list; `picked` are then documents. `are_items` says that
    the documents of a list are few, short and of one line each.
    """

    lines: int
    picked: tuple[str, ...]
    are_items: bool = False

    @classmethod
    def read(cls, printed: str) -> TextSample | None:
        """Read what `SAMPLE_CODE` printed; None where that is something else."""
        try:
            found: Any = json.loads(printed)
            picked = cast("list[str]", found["picked"])
            sample = cls(int(found["lines"]), tuple(map(str, picked)), bool(found["items"]))
        except (ValueError, TypeError, KeyError):
            return None
        return sample if sample.picked else None

    @property
    def shown(self) -> tuple[tuple[str, str], ...]:
        """The first two, one of the middle and the last, each with its place in words."""
        picked = self.picked
        if len(picked) < 4:
            names = ("first", "second", "third")
            return tuple(zip(names, picked, strict=False))
        middle = picked[len(picked) // 2]
        return (
            ("first", picked[0]),
            ("second", picked[1]),
            ("middle", middle),
            ("last", picked[-1]),
        )


def may_be_items(source: ContextSource) -> bool:
    """Whether a list has few and short documents; only a look tells if each is one line."""
    lengths = source.char_lengths
    return 1 < len(lengths) <= MAX_ITEMS and sum(lengths) <= MAX_ITEMS_CHARS


def shape_of(source: ContextSource, sample: TextSample | None) -> TextShape:
    """Tell how a text is best worked on; by its size where nobody has looked at it."""
    if source.is_list:
        is_of_items = sample is not None and sample.are_items and may_be_items(source)
        return "items" if is_of_items else "documents"
    is_short = sum(source.char_lengths) <= MAX_ITEMS_CHARS
    if sample and is_short and 1 < sample.lines <= MAX_ITEMS:
        return "items"
    return "lines"


def describe_lines(chars: int, sample: TextSample) -> str:
    """Describe a str by lines of it, and by the parts that they have."""
    head = f"`context` is a str of {chars} characters, {sample.lines} lines."
    shown = [f"{place} line: {_line(line)}" for place, line in sample.shown]
    return "\n".join((head, *shown, *describe_parts(sample)))


def describe_items(chars: int, count: int, sample: TextSample) -> str:
    """Describe a list of short items by some of them."""
    head = f"`context` is a list of {count} str, one line each, {chars} characters in all."
    return "\n".join((head, *(f"{place} item: {_line(item)}" for place, item in sample.shown)))


def describe_parts(sample: TextSample) -> tuple[str, ...]:
    """Say how code gets at the parts of a line, where all lines that were looked at agree."""
    lines = sample.picked
    if len(lines) < MIN_PARTS or any(len(line) >= _PICKED_CHARS for line in lines):
        return ()
    record = _json_record(lines)
    if record is not None:
        shown = cut(repr(record), 2 * MAX_SHOWN_CHARS)
        return (f"Each line is JSON: json.loads(line) gives a dict such as {shown}",)
    separator, parts = _split(lines)
    if not parts:
        return ()
    header = _header(parts) if separator else ()
    example = parts[1]
    said = ", ".join(f"parts[{at}] is {part!r}" for at, part in enumerate(example[:MAX_PARTS]))
    call = f"line.split({separator!r})" if separator else "line.split()"
    return (*header, f"Each line has {len(example)} parts. With parts = {call}: {said}")


def _line(line: str) -> str:
    return cut(without_surrogates(line), MAX_SHOWN_CHARS)


def _json_record(lines: Sequence[str]) -> dict[str, Any] | None:
    if not all(line.lstrip().startswith("{") for line in lines):
        return None
    try:
        records = [json.loads(line) for line in lines]
    except ValueError:
        return None
    return records[0]


def _split(lines: Sequence[str]) -> tuple[str, list[list[str]]]:
    """Split by the first separator that gives every line equally many parts, as `split` does."""
    for separator in _SEPARATORS:
        parts = [line.split(separator) for line in lines]
        if len(parts[0]) >= MIN_PARTS and len(set(map(len, parts))) == 1:
            # Quoted fields hold separators of their own, which `split` does not know.
            return (separator, parts) if not any('"' in line for line in lines) else ("", [])
    words = [line.split() for line in lines]
    if MIN_PARTS <= len(words[0]) <= MAX_WORDS and len(set(map(len, words))) == 1:
        return "", words
    return "", []


def _header(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Name a header: no digit in it where all the other lines have one."""
    first, others = parts[0], parts[1:]
    is_header = any(
        not any(map(str.isdigit, name)) and all(any(map(str.isdigit, row[at])) for row in others)
        for at, name in enumerate(first)
    )
    if not is_header:
        return ()
    return ("The first line is a header: begin with context.splitlines()[1:]",)
