"""What is shown of texts, outputs and errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from rlm_mcp.engine.prompts.cell_output import cut_middle, fold_lines, show_cell
from rlm_mcp.engine.prompts.opening import describe_context
from rlm_mcp.sandbox.host.text import TextContext
from rlm_mcp.sandbox.types import CellError, CellResult
from rlm_mcp.text import preview


@dataclass(frozen=True)
class ManyDocuments:
    """A source known by its figures alone, as one that lies in a store."""

    char_lengths: Sequence[int]
    names: Sequence[str] = ()
    prefix: str = ""
    is_list: bool = True
    key: str = "many"
    byte_lengths: Sequence[int] = field(default=())

    def chunks(self) -> Iterator[bytes]:
        yield b""


def cell(output: str = "", error: CellError | None = None) -> CellResult:
    return CellResult(output, len(output), 0.1, error=error)


def test_one_text_is_described_by_kind_length_and_start() -> None:
    assert describe_context(TextContext.of("abcdefghij"), 4) == (
        "`context` is a str of 10 characters.\nIt starts with:\nabcd\n[… 6 characters more]"
    )


def test_a_text_shorter_than_the_prefix_is_shown_to_its_end() -> None:
    assert describe_context(TextContext.of("abc"), 100) == (
        "`context` is a str of 3 characters.\nIt starts with:\nabc\n[the end]"
    )


@pytest.mark.parametrize("text", ["", "abc"])
def test_no_prefix_is_shown_when_none_is_wanted_or_there(text: str) -> None:
    shown = describe_context(TextContext.of(text), 0)
    assert shown == f"`context` is a str of {len(text)} characters."


def test_documents_are_described_by_number_lengths_names_and_the_first_ones_start() -> None:
    assert describe_context(TextContext.of(["aaaaa", "b", "ccc"]), 2) == (
        "`context` is a list of 3 str, one a document, 9 characters in all. Characters of a "
        "document: smallest 1, median 3, largest 5.\n"
        "`context_names`: 'document 0', 'document 1', 'document 2'.\n"
        "`context[0]` starts with:\naa\n[… 3 characters more]"
    )


def test_an_empty_list_says_that_there_are_no_documents() -> None:
    assert "no documents" in describe_context(TextContext.of([]), 100)


def test_a_million_documents_are_described_as_shortly_as_ten() -> None:
    lengths = range(1, 1_000_001)
    names = [f"folder/{'x' * 500}\n{number}.txt" for number in range(10)]
    shown = describe_context(ManyDocuments(lengths, names), 1000)
    assert len(shown) < 1500
    assert "1000000 str" in shown
    assert "smallest 1, median about 5000" in shown
    assert "largest 1000000" in shown


def test_names_that_hold_line_ends_or_odd_characters_stay_on_one_short_line() -> None:
    names = ["a\nb", "\U000e0001" * 80, "\ud800", "'quoted'"]
    shown = describe_context(ManyDocuments([1, 1, 1, 1], names), 0)
    (line,) = [line for line in shown.split("\n") if line.startswith("`context_names`")]
    assert "'a\\nb'" in line
    assert len(line) < 4 * 70
    line.encode()


def test_the_prefix_can_be_sent_whatever_characters_it_holds() -> None:
    shown = describe_context(TextContext.of("a\ud800b"), 100)
    assert "a?b" in shown
    shown.encode()


def test_a_text_within_the_limit_is_shown_as_it_is() -> None:
    assert cut_middle("abc\ndef", 7) == "abc\ndef"


def test_a_long_text_keeps_head_and_tail_and_says_what_is_left_out() -> None:
    text = "a" * 100 + "b" * 1000 + "c" * 100
    shown = cut_middle(text, 30)
    assert shown == f"{'a' * 20}\n[… 1170 characters left out …]\n{'c' * 10}"


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4])
def test_a_tiny_limit_never_shows_more_than_it(limit: int) -> None:
    shown = cut_middle("abcdefgh", limit)
    kept = [line for line in shown.split("\n") if not line.startswith("[")]
    assert len("".join(kept)) == limit
    assert f"{8 - limit} characters left out" in shown


def test_what_was_cut_before_is_counted_too() -> None:
    assert "9990 characters left out" in cut_middle("x" * 50, 10, total=10_000)


def test_equal_lines_in_a_row_are_folded_and_others_kept() -> None:
    assert fold_lines("a\nx\nx\nx\nb\nb\nx") == "a\nx   (this line 3 times)\nb\nb\nx"


def test_blank_lines_in_a_row_become_one() -> None:
    assert fold_lines("a\n\n\n\n\nb") == "a\n\nb"


def test_output_is_shown_as_it_was_printed() -> None:
    assert show_cell(cell("one\ntwo\n"), 100) == "one\ntwo"


@pytest.mark.parametrize("output", ["", "\n", "  \n"])
def test_a_cell_that_printed_nothing_says_so(output: str) -> None:
    assert "nothing was printed" in show_cell(cell(output), 100)


def test_long_output_is_cut_in_the_middle() -> None:
    shown = show_cell(cell("a" * 500 + "b" * 500), 90)
    assert shown.startswith("a" * 60)
    assert shown.endswith("b" * 30)
    assert "910 characters left out" in shown


def test_output_that_the_child_cut_counts_from_its_true_length() -> None:
    result = CellResult("x" * 1000, 5_000_000, 0.1)
    assert "4999900 characters left out" in show_cell(result, 100)


def test_equal_lines_of_output_are_folded_where_asked() -> None:
    assert show_cell(cell("x\n" * 50), 100, fold=True) == "x   (this line 50 times)"


def test_type_and_message_of_an_error_stand_last_and_whole() -> None:
    message = "no such key: " + "k" * 3000
    frames = "Traceback (most recent call last):\n" + "  frame\n" * 5000
    error = CellError("KeyError", message, f"{frames}KeyError: {message}")
    shown = show_cell(cell("printed\n", error), 100)
    assert shown.startswith("printed\nTraceback")
    assert shown.endswith(f"\nKeyError: {message}")
    assert shown.count("KeyError") == 1
    assert len(shown) < len(message) + 700


def test_an_error_without_a_message_is_named() -> None:
    error = CellError("KeyboardInterrupt", "", "Traceback:\n  x()\nKeyboardInterrupt")
    assert show_cell(cell(error=error), 100) == "Traceback:\n  x()\nKeyboardInterrupt"


def test_an_error_without_a_traceback_is_told() -> None:
    assert show_cell(cell(error=CellError("E", "why", "")), 100) == "E: why"


def test_a_message_over_several_lines_is_not_told_twice() -> None:
    error = CellError("ValueError", "a\nb", "Traceback:\n  x()\nValueError: a\nb\n")
    assert show_cell(cell(error=error), 100) == "Traceback:\n  x()\nValueError: a\nb"


def test_a_timeout_says_that_variables_are_kept() -> None:
    error = CellError("TimeoutError", "ran for 5 s", "")
    shown = show_cell(replace(cell("x", error), timed_out=True), 100)
    assert shown.split("\n")[0] == "x"
    assert "kept" in shown
    assert shown.endswith("TimeoutError: ran for 5 s")


def test_lost_variables_are_told_in_plain_words_and_nothing_is_said_to_be_kept() -> None:
    error = CellError("MemoryError", "the process was killed", "")
    shown = show_cell(replace(cell("", error), timed_out=True, lost_variables=True), 100)
    assert "all variables are gone" in shown
    assert "kept" not in shown
    assert shown.endswith("MemoryError: the process was killed")


def test_output_and_errors_can_be_sent_whatever_characters_they_hold() -> None:
    error = CellError("E", "\udfff", "\ud800\nE: \udfff")
    show_cell(cell("\ud800", error), 100).encode()


def test_a_preview_is_one_short_line() -> None:
    assert preview("  a\n\tb  c \n") == "a b c"
    assert preview("x" * 500, 10) == "x" * 9 + "…"
    assert preview("") == ""
    preview("\ud800").encode()
