"""What a root model is shown of a text, of a cell's output and of what is left. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rlm_mcp.sandbox.types import CellError, CellResult, ContextSource
from rlm_mcp.text import without_surrogates

CONTEXT_RESTORED = (
    "[Your code assigned `context`. `context` was restored. Do not overwrite it; store results "
    "under another name.]"
)

_MAX_NAMES = 4
_MAX_NAME_CHARS = 60
# Sorting a million lengths would hold up the event loop; every n-th of them does for a median.
_MEDIAN_SAMPLE = 10_000
_MIN_TRACEBACK_CHARS = 400
_FOLDED_FROM = 3


@dataclass(frozen=True)
class TurnInfo:
    """What is left of the run before the turn that is asked for; None means no such limit.

    Args:
        iteration: the turn to be written, from 1.
        max_iterations: turns in all.
        sub_calls_left: sub-calls left in the whole tree of the run; None where there are none.
        seconds_left: wall-clock seconds left.
        usd_left: USD left.
        tokens_left: tokens left, in and out.
    """

    iteration: int
    max_iterations: int
    sub_calls_left: int | None = None
    seconds_left: float | None = None
    usd_left: float | None = None
    tokens_left: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether no turn follows this one."""
        return self.iteration >= self.max_iterations

    def __str__(self) -> str:
        """One line, as the model reads it."""
        parts = [f"Turn {self.iteration} of {self.max_iterations}"]
        if self.sub_calls_left is not None:
            parts.append(f"{self.sub_calls_left} sub-calls left")
        if self.seconds_left is not None:
            parts.append(f"{max(0, round(self.seconds_left))} s left")
        if self.usd_left is not None:
            parts.append(f"${max(0.0, self.usd_left):.2f} left")
        if self.tokens_left is not None:
            parts.append(f"{self.tokens_left} tokens left")
        return f"[{' · '.join(parts)}]"


@dataclass(frozen=True)
class ContextPreview:
    """What the first message shows of a text besides its description.

    `matches` is what `search(question)` printed. `whole` is the whole text with its description,
    which then replaces the description. `before` says what was asked earlier in the same REPL.
    """

    matches: str = ""
    whole: str = ""
    before: str = ""


def describe_context(source: ContextSource, prefix_chars: int) -> str:
    """Describe a context: kind, size, lengths, a few names, its first `prefix_chars` characters.

    However many documents there are, the rest stays under 1,500 characters.
    """
    lengths = source.char_lengths
    if not source.is_list:
        total = sum(lengths)
        head = f"`context` is a str of {total} characters."
        return head + _start("It", source.prefix, prefix_chars, total)
    if not lengths:
        return "`context` is an empty list: there are no documents."
    head = (
        f"`context` is a list of {len(lengths)} str, one a document, {sum(lengths)} characters "
        f"in all. Characters of a document: smallest {min(lengths)}, median {_median(lengths)}, "
        f"largest {max(lengths)}."
    )
    names = f"\n`context_names`: {_few(source.names)}." if len(source.names) else ""
    return head + names + _start("`context[0]`", source.prefix, prefix_chars, lengths[0])


def show_whole(documents: Sequence[str], source: ContextSource) -> str:
    """Describe a context that is short enough to be shown whole, and show it."""
    total = sum(source.char_lengths)
    if not source.is_list:
        text = without_surrogates(documents[0])
        return f"`context` is a str of {total} characters. This is all of it:\n{text}\n[the end]"
    names = source.names if len(source.names) == len(documents) else [""] * len(documents)
    shown = [
        f"[context[{index}], {_name(name)}]\n{without_surrogates(document)}"
        for index, (name, document) in enumerate(zip(names, documents, strict=True))
    ]
    head = f"`context` is a list of {len(documents)} str, {total} characters in all. This is all:"
    return "\n".join((head, *shown, "[the end]"))


def cut_middle(text: str, limit: int, *, total: int | None = None) -> str:
    """Keep head and tail of `text`, `limit` characters, and say how many are left out.

    Args:
        text: what is to be shown. Surrogates, which no request can carry, become `?`.
        limit: characters kept, besides the note.
        total: characters there were before `text` was cut an earlier time.
    """
    text = without_surrogates(text)
    if len(text) <= limit:
        return text
    tail = limit // 3
    head = limit - tail
    left_out = max(total or 0, len(text)) - limit
    note = f"[… {left_out} characters left out …]"
    return "\n".join(part for part in (text[:head], note, text[len(text) - tail :]) if part)


def fold_lines(text: str) -> str:
    """Show equal lines that follow each other once, with their number, from three on."""
    shown: list[str] = []
    for line, group in groupby(text.split("\n")):
        count = sum(1 for _ in group)
        if count < _FOLDED_FROM:
            shown += [line] * count
        else:
            shown.append(f"{line}   (this line {count} times)" if line.strip() else line)
    return "\n".join(shown)


def show_cell(result: CellResult, limit: int, *, fold: bool = False) -> str:
    """Show what a cell printed and how it failed; at most `limit` characters of output.

    The error comes last, its type and message whole, however long the traceback before them.
    """
    output = fold_lines(result.output) if fold else result.output
    total = result.output_chars if result.output_chars > len(result.output) else None
    parts = [cut_middle(output.strip("\n"), limit, total=total)] if output.strip() else []
    if result.timed_out and not result.lost_variables:
        parts.append("The cell was stopped at its time limit; what it had assigned is kept.")
    if result.lost_variables:
        parts.append(
            "The REPL had to be replaced by a fresh one: all variables are gone, `context` is "
            "still there. Assign again what you need."
        )
    if result.error is not None:
        parts.append(_show_error(result.error, limit))
    return "\n".join(parts) or "(nothing was printed; print what you want to see)"


def _start(subject: str, prefix: str, limit: int, total: int) -> str:
    shown = without_surrogates(prefix[:limit])
    if not shown:
        return ""
    rest = total - len(shown)
    end = f"[… {rest} characters more]" if rest > 0 else "[the end]"
    return f"\n{subject} starts with:\n{shown}\n{end}"


def _median(lengths: Sequence[int]) -> str:
    step = -(-len(lengths) // _MEDIAN_SAMPLE)
    sample = sorted(lengths[::step])
    middle = sample[len(sample) // 2]
    return f"about {middle}" if step > 1 else str(middle)


def _few(names: Sequence[str]) -> str:
    if len(names) <= _MAX_NAMES:
        return ", ".join(_name(name) for name in names)
    first = ", ".join(_name(names[index]) for index in range(_MAX_NAMES - 1))
    return f"{first}, … {_name(names[-1])}"


def _name(name: str) -> str:
    # Cut before and after: a line end or an odd character grows when it is quoted.
    shown = repr(name[: _MAX_NAME_CHARS + 1])
    return shown if len(shown) <= _MAX_NAME_CHARS + 2 else f"{shown[:_MAX_NAME_CHARS]}…{shown[0]}"


def _show_error(error: CellError, limit: int) -> str:
    last = f"{error.type}: {error.message}" if error.message else error.type
    frames = error.traceback.rstrip().removesuffix(last).rstrip()
    if frames:
        frames = cut_middle(frames, max(limit, _MIN_TRACEBACK_CHARS)) + "\n"
    return frames + without_surrogates(last)
