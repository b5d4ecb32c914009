"""Messages to a root model that are the same for every model. Pure: values in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlm_mcp.engine.prompts.cell_output import cut_middle
from rlm_mcp.text import nearest

_MAX_NAMES = 30
_MAX_GUESS_CHARS = 1_000
_MAX_ERROR_CHARS = 2_000
_MAX_REMEMBERED_CHARS = 600
_MAX_JUDGED_CHARS = 4_000


def show_outputs(shown_cells: Sequence[str]) -> str:
    """Put the outputs of one turn under headings."""
    if len(shown_cells) == 1:
        return f"Output:\n{shown_cells[0]}"
    numbered = enumerate(shown_cells, 1)
    return "\n".join(f"Output of block {number}:\n{shown}" for number, shown in numbered)


def confirm_final(guess: str, output: str) -> str:
    """Show the output of code that ran after `guess` was written, and ask to confirm it.

    `output` is what `show_cell` or `show_outputs` returned.
    """
    return (
        "You wrote this answer before you saw the output of your code:\n"
        f"{cut_middle(guess, _MAX_GUESS_CHARS)}\n\n"
        f"The code has run now. It printed:\n{output}\n\n"
        "Does the output support this answer? If so, give the same FINAL again, without code. If "
        "not, correct it, or continue with code."
    )


def confirm_extent(answer: str) -> str:
    """Show how an answer was understood whose end is not clear, and ask to confirm it."""
    return (
        "It is not clear where your answer ends, or which one is meant. It was understood as:\n"
        f"{cut_middle(answer, _MAX_GUESS_CHARS)}\n\n"
        "If this is the whole answer, give the same FINAL again. If not, put the answer into a "
        'variable in a code block and return that, or give it in quotes: FINAL("""...""").'
    )


def confirm_word(word: str) -> str:
    """Ask whether a word is the answer that stands for it in examples, and names no variable."""
    return (
        f"FINAL({word}) gives the word {word!r} as the answer: no variable has that name. If that "
        "is the answer, give the same FINAL again. If not, write the answer out, or assign it in a "
        "code block and return it with FINAL_VAR."
    )


def unfilled_template(answer: str) -> str:
    """Say that an answer has fields in braces that nothing was put into."""
    return (
        f"Your answer {cut_middle(answer, _MAX_GUESS_CHARS)!r} has names in braces where values "
        'should be. Put the values in: write them out, or call FINAL(f"...") in a code block.'
    )


def doubt_empty(value: str, hint: str = "") -> str:
    """Question an answer that is empty or zero; `hint` says what may be the cause."""
    return f"Your answer {value!r} was not accepted yet. {hint or question_nothing()}"


def doubt_unseen(value: str) -> str:
    """Question an answer that no output so far contains."""
    return (
        f"Your answer {cut_middle(value, _MAX_GUESS_CHARS)!r} was not accepted yet: nothing that "
        "your code printed contains it. Find it in `context` with code and print it, or compute it."
    )


def doubt_form(value: str, parts: str = "") -> str:
    """Question an answer that is not the number asked for; `parts` are those of a line."""
    said = (
        f"Your answer {cut_middle(value, _MAX_GUESS_CHARS)!r} was not accepted yet: the question "
        "asks for a number, and for nothing else. Take it out of the text, and answer with it."
    )
    return f"{said}\n{parts}" if parts else said


def want_number() -> str:
    """Say that an output holds no number, where the question asks for one."""
    return (
        "This has no number, and the question asks for a number. Print the whole line, not a part "
        "of it: print(line)"
    )


def doubt_yes(value: str) -> str:
    """Question a yes that follows on code which found nothing."""
    return (
        f"Your answer {value!r} was not accepted yet: your code found nothing, so the text does "
        "not have what you looked for. Does that mean yes, or does it mean no?"
    )


def doubt_one_of_many(value: str, hint: str) -> str:
    """Question an answer that a search showed first among many that match as well."""
    return f"Your answer {cut_middle(value, _MAX_GUESS_CHARS)!r} was not accepted yet. {hint}"


def question_nothing(*, of_replies: bool = False, number: str = "") -> str:
    """Say what a zero or an empty result often means.

    Args:
        of_replies: whether replies to sub-calls were searched, and not the text.
        number: a number that the code looked for as text.
    """
    if of_replies:
        return (
            "An empty or zero result often means that the code does not match the way the replies "
            'are written: "Yes." is not "yes". Print a few of them and look at them.'
        )
    said = (
        "An empty or zero result often means that the code does not match the way the text is "
        "written. Print a few lines that should match, for example with search(…), and look at "
        "them."
    )
    if not number:
        return said
    word = re.sub(r"\d[\d.,]*", " ", number).strip()
    taken = f'number_near(line, "{word}")' if word.isalpha() else _searched(number)
    return (
        f"{said} Your code looks for the exact text {number!r}. To compare numbers, take the "
        f"number out of each line, as in {taken}."
    )


def _searched(number: str) -> str:
    pattern = re.sub(r"\d+", lambda _: r"(\d+)", number, count=1)
    return f'int(re.search(r"{pattern}", line).group(1))'


def judge_items() -> str:
    """Propose to let a model judge few items, where code found nothing in them."""
    return (
        "The text may say it in other words. Let a model judge what each item means: "
        'found = ask_each(context, "…?") with a yes-or-no question about one item.'
    )


def remind_of_output(printed: str) -> str:
    """Repeat what earlier code printed, to a model that starts over; empty where there is none."""
    shown = cut_middle(printed, _MAX_REMEMBERED_CHARS)
    return f"Earlier code printed:\n{shown}\n" if printed else ""


def answer_from_output(question: str, shown: str) -> str:
    """Ask for the answer in a fresh conversation, from what was printed."""
    return (
        f"Question: {question}\n\nA program read the text to answer it and printed:\n{shown}\n\n"
        "Give the answer to the question and nothing else."
    )


def missing_variable(name: str, existing: Sequence[str]) -> str:
    """Say that `FINAL_VAR(name)` names no variable, and which ones exist."""
    said = f"There is no variable `{cut_middle(name, 100)}`."
    if not existing:
        return f"{said} Your code has not assigned any yet: assign it in a code block first."
    close = nearest(name, existing)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    names = ", ".join(existing[-_MAX_NAMES:])
    more = f" and {len(existing) - _MAX_NAMES} more" if len(existing) > _MAX_NAMES else ""
    return (
        f"{said}{hint} These variables exist: {names}{more}. Assign it in a code block, or name "
        "one of them."
    )


def finish_soon(limit: str) -> str:
    """Say that a limit is nearly used up."""
    return (
        f"[{limit} are used up. Finish now: do only what the answer still needs, and answer with "
        "what you have.]"
    )


def schema_instructions(schema: Mapping[str, Any]) -> str:
    """Say that the answer must be JSON that fits `schema`."""
    return (
        "The answer must be JSON that fits this JSON Schema:\n"
        f"{json.dumps(schema, ensure_ascii=False)}\n"
        "Build it in code as a dict, list, str, number or bool, and return it with FINAL(value)."
    )


def judge_attempts(question: str, answers: Sequence[str]) -> str:
    """Ask which of several answers to one question say the same, and which is best."""
    shown = "\n\n".join(
        f"Answer {number}:\n{cut_middle(answer, _MAX_JUDGED_CHARS)}"
        for number, answer in enumerate(answers, 1)
    )
    return (
        f"{shown}\n\nThese answers were given independently to this question:\n{question}\n\n"
        "Which of them say the same, whatever the wording? And which one is the best? Judge by the "
        "answers alone. Reply with JSON alone, such as "
        '{"same": [[1, 3], [2]], "best": 1}: groups of the numbers of answers that say the same, '
        "and the number of the best."
    )


def schema_repair(error: str, attempt: int, max_attempts: int) -> str:
    """Say why the last answer did not fit the schema, in the validator's words.

    `attempt` counts the repairs asked for, from 1.
    """
    return (
        f"The answer does not fit the JSON Schema (repair {attempt} of {max_attempts}):\n"
        f"{cut_middle(error, _MAX_ERROR_CHARS)}\n"
        "Fix only this and give the whole answer again with FINAL(value)."
    )
