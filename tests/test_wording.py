"""Errors in the words of who reads them: commands at a terminal, controls on the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rlm_mcp.cli.wording import error_line, in_words_of_commands
from tests.error_texts import error_texts

WORDS: list[tuple[str, str]] = json.loads(
    (Path(__file__).parent.parent / "web" / "src" / "words.json").read_text("utf-8")
)
# Errors that never get there: of the REPL, of the library, of Ray, and what a file should hold.
ELSEWHERE = r"rlm_query_batch|rlm_query takes|rlm_worker|root_model (?:must name|=)"
TEXTS = [text.replace("…", "5") for text in error_texts() if not re.search(ELSEWHERE, text)]
TOOL = r"\brlm_(?!mcp\b)\w+"
ARGUMENT = (
    r"continue_run|answer_schema|literal=|mode=|\broot_model\b|\bmax_(?:usd|tokens|sec|sub|it)"
)
OTHERS = r"server's machine|\boperator\b"
# No command leads to these, so they stay as they are.
OF_TOOLS_ALONE = r"rlm_exec with the run_id|rlm_context_upload_url|idempotency_key"


def in_words_of_the_page(text: str) -> str:
    for written, instead in WORDS:
        text = re.sub(written, re.sub(r"\$(\d)", r"\\\1", instead), text)
    return text


def test_the_texts_of_errors_are_found() -> None:
    assert len(TEXTS) > 300
    assert "rlm_run_list lists them all." in TEXTS
    assert sum(bool(re.search(TOOL, text)) for text in TEXTS) > 25


@pytest.mark.parametrize("text", [text for text in TEXTS if not re.search(OF_TOOLS_ALONE, text)])
def test_no_error_names_a_tool_an_argument_or_an_operator_at_a_terminal(text: str) -> None:
    said = in_words_of_commands(text)

    assert re.search(f"{TOOL}|{ARGUMENT}|{OTHERS}", said) is None, said


@pytest.mark.parametrize("text", [text for text in TEXTS if "idempotency_key" not in text])
def test_no_error_names_a_tool_or_an_argument_on_the_page(text: str) -> None:
    said = in_words_of_the_page(text)

    assert re.search(f"{TOOL}|{ARGUMENT}", said) is None, said


@pytest.mark.parametrize(
    ("message", "fix", "told"),
    [
        ("It ended.", "Ask with continue_run of rlm_query.", "It ended. Ask with {} --continue."),
        (
            "answer_schema is wrong.",
            "Or set literal=true.",
            "--schema is wrong. Or give --literal.",
        ),
        ("It said: no model 'x'", "Name another.", "It said: no model 'x'. Name another."),
        ("It said: no model 'x'", "", "It said: no model 'x'"),
        (
            "It is used up.",
            "Give a larger budget, such as {'max_usd': 2.0, 'max_sub_calls': 9}: it counts.",
            "It is used up. Give a larger budget, such as --max-usd 2.0 --max-sub-calls 9: it "
            "counts.",
        ),
        (
            "max_usd=0.5 cannot be kept.",
            "Leave max_usd out, or set max_tokens instead. The operator can set X.",
            "--max-usd 0.5 cannot be kept. Leave --max-usd out, or set --max-tokens instead. Or "
            "set X.",
        ),
        (
            "'max_usd' is a part of `budget`, not of `options`.",
            "",
            "--max-usd is no --option: it has an option of its own.",
        ),
    ],
)
def test_an_error_at_a_terminal_names_options(message: str, fix: str, told: str) -> None:
    error = {"code": "invalid_input", "message": message, "fix": fix}

    assert error_line(error) == f"invalid_input: {told.replace('{}', 'rlm-mcp query')}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The path 'max_usd=2 rlm_query' does not exist.", None),
        ('There is no text "the server\'s limit must be rlm_query" here.', None),
        (
            "It starts with 'a \\'b\\' literal=true': max_usd.",
            "It starts with 'a \\'b\\' literal=true': --max-usd.",
        ),
        ("There is no option 'x'; did you mean 'root_max_tokens'? Options: sub_max_tokens.", None),
        ("max_usd=nan: input", "--max-usd nan: input"),
        ("max_usd=1e+30: input", "--max-usd 1e+30: input"),
    ],
)
def test_what_an_error_quotes_and_what_has_a_longer_name_stay_as_they_are(
    text: str, said: str | None
) -> None:
    assert in_words_of_commands(text) == (said or text)


def test_what_a_provider_says_stays_as_it_is() -> None:
    error = {"code": "model_request", "message": "It said: max_tokens=5 is too few", "fix": ""}

    assert error_line(error) == "model_request: It said: max_tokens=5 is too few"
