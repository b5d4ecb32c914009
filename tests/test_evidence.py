"""What counts as computed, as shown, and as nothing."""

from __future__ import annotations

import pytest

from rlm_mcp.engine.parsing.evidence import (
    assigns_context,
    is_computed,
    is_empty_output,
    is_shown,
    number_tested_as_text,
)


@pytest.mark.parametrize(
    ("code", "computed"),
    [
        ("FINAL(len(hits))", True),
        ("FINAL(total)", True),
        ("FINAL_VAR('total')", True),
        ("hits = context.count('a')\nFINAL(hits)", True),
        ("FINAL(search('a')[0].text)", True),
        ("FINAL(f'{total} euro')", True),
        ("FINAL(12 * 37)", False),
        ("FINAL(str(5))", False),
        ("FINAL('42')", False),
        ("FINAL([1, 'two'])", False),
        ("answer = 'Lisbon'\nFINAL(answer)", False),
        ("print(context[:9])\nFINAL('Lisbon')", False),
        ("def f():\n    return 42\nFINAL(f())", False),
        ("FINAL(", True),
    ],
)
def test_what_a_model_wrote_itself_is_not_computed(code: str, computed: bool) -> None:
    assert is_computed(code) == computed


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("Lisbon", True),
        ("lisbon", True),
        ("She moved to Lisbon", True),
        ("Porto", False),
        ("2019", True),
        ("201", False),
        ("20", False),
        ("Lisbon, 2020", False),
        ("Yes", True),
        ("no", True),
        ("The city of Anna is Lisbon.", True),
        (
            "Anna went there since she liked the sea and the light and the trams of the old town.",
            True,
        ),
    ],
)
def test_an_answer_is_shown_when_its_numbers_and_words_are(answer: str, shown: bool) -> None:
    output = "[at 31207] In 2019 she moved to Lisbon."
    assert is_shown(answer, output, "Which city is Anna in since 20 years?") == shown


@pytest.mark.parametrize(
    "output", ["", "0\n", "[]", " {} ", "None\n", "set()", "False", "-1", "0 []", "(0, [])"]
)
def test_a_zero_and_an_empty_value_are_nothing(output: str) -> None:
    assert is_empty_output(output)
    assert not is_empty_output(f"{output}x 1")


@pytest.mark.parametrize(
    ("code", "assigns"),
    [
        ("context = 'x'", True),
        ("for context in range(3):\n    pass", True),
        ("text, context = 1, 2", True),
        ("def f(context):\n    context = 1", False),
        ("context_names = 1\nprint(context)", False),
        ("context =", False),
    ],
)
def test_code_that_replaces_the_text_is_known(code: str, assigns: bool) -> None:
    assert assigns_context(code) == assigns


@pytest.mark.parametrize(
    ("code", "sought"),
    [
        ("sum('500 ms' in line for line in lines())", "500 ms"),
        ("for line in lines():\n    if 'a' in line and '> 20' in line:\n        pass", "> 20"),
        ("'ERROR' in line", ""),
        ("5 in [5]", ""),
        ("'500' == line", ""),
        ("'500' in", ""),
    ],
)
def test_a_number_that_is_looked_for_as_text_is_known(code: str, sought: str) -> None:
    assert number_tested_as_text(code) == sought
