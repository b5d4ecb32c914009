"""Finals and code in further forms: without parentheses, in odd fences, escaped for Markdown."""

from __future__ import annotations

import pytest

from rlm_mcp.engine.parsing.reply import CodeBlock, Directive, parse_reply

CODE = "total = 6 * 7\nprint(total)"

CERTAIN = {
    "brackets": "FINAL[42]",
    "braces": "FINAL{42}",
    "brackets in bold": "**FINAL[42]**",
    "behind words": "Six times seven was printed.\n\nFINAL[42]",
    "a number behind the word": "FINAL 42",
    "ANSWER too": "FINAL ANSWER 42",
    "the word in bold": "**FINAL** 42",
    "the value in bold": "FINAL **42**",
    "quoted": 'FINAL "42"',
    "a dash": "FINAL — 42",
    "a sign before a colon": "✅ **Final Answer:** 42",
    "the word above": "FINAL\n42",
    "a heading": "## FINAL\n\n42",
    "a bold line above": "**FINAL**\n\n42",
    "a block below": "FINAL:\n```\n42\n```",
    "a block below a bold line": "**Final Answer:**\n\n```text\n42\n```",
    "a block that is named so": "```answer\n42\n```",
    "a block that is named FINAL": "It was printed.\n```FINAL\n42\n```",
    "escaped for Markdown": r"FINAL\(42\)",
    "ReAct's own": "Thought: it is printed.\nAction: Finish[42]",
    "a chat agent's": '{"action": "Final Answer", "action_input": "42"}',
    "confidence beside it": 'FINAL(answer="42", confidence=0.9)',
    "reasons beside it": 'FINAL("42", explanation="six times seven (as printed)")',
    "another name": "FINAL(output=42)",
    "French": "La réponse finale est : 42",
    "Dutch": "Definitief antwoord: 42",
    "Turkish": "**Nihai cevap:** 42",
    "Arabic": "الإجابة النهائية: 42",
    "Hindi": "अंतिम उत्तर: 42",
    "Chinese, in a sentence": "最终答案是 FINAL(42)。",
    "Japanese, in a sentence": "答えは FINAL(42) です。",
}

NAMES = {
    "brackets": "FINAL_VAR[total]",
    "behind the word": "FINAL_VAR total",
    "below the word": "FINAL_VAR\ntotal",
    "a tag": "<FINAL_VAR>total</FINAL_VAR>",
    "JSON": '{"FINAL_VAR": "total"}',
    "a hyphen": "FINAL-VAR(total)",
    "a point": "FINAL.VAR(total)",
    "escaped for Markdown": r"FINAL\_VAR(total)",
    "a block that is named so": "```FINAL_VAR\ntotal\n```",
}

OPEN = {
    "a list or its items": ("FINAL[1, 2]", "1, 2"),
    "a space before the bracket": ("FINAL [42]", "42"),
    "a hyphen or a minus": ("FINAL - 42", "42"),
    "words": ("FINAL the amber lantern", "the amber lantern"),
    "no closing parenthesis": ("FINAL(42", "42"),
    "a sentence without one": ("FINAL(It is amber.", "It is amber."),
    "two that differ": ("FINAL(41)\nFINAL(42)", "41"),
}

NO_FINALS = {
    "a title": "FINAL REPORT\n\nThe text is about a tower.",
    "a sentence about it": "FINAL answers are given with parentheses.",
    "a placeholder": "FINAL[your answer]",
    "two brackets": "See FINAL[1] and [2] for more of this, then go on.",
    "a block of something else": "The config is:\n```yaml\na: 1\n```",
}

WRITTEN = {
    "three apostrophes": f"'''python\n{CODE}\n'''",
    "three quotes": f'"""repl\n{CODE}\n"""',
    "three apostrophes alone": f"'''\n{CODE}\n'''",
    "acute accents": f"´´´python\n{CODE}\n´´´",
    "two backticks": f"``python\n{CODE}\n``",
    "an end that is not whole": f"```python\n{CODE}\n``",
    "the wrong end": f"'''python\n{CODE}\n```",
    "an interpreter session without a fence": ">>> total = 6 * 7\n>>> print(total)\n42",
    "a notebook": "In [1]: total = 6 * 7\nIn [2]: print(total)\nOut[2]: 42",
    "a notebook in a fence": "```python\nIn [1]: total = 6 * 7\nIn [2]: print(total)\n```",
    "an action": f"Thought: compute it.\nAction: python\nAction Input: {CODE}\nObservation: 41",
    "brackets": f"[code]\n{CODE}\n[/code]",
    "a tag": f"<code_execution>\n{CODE}\n</code_execution>",
    "Mistral's calls": '[TOOL_CALLS][{"name": "repl", "arguments": {"code": '
    '"total = 6 * 7\\nprint(total)"}}]',
    "a call in harmony": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>"
    f"commentary to=python code<|message|>{CODE}<|call|>",
}


@pytest.mark.parametrize("reply", CERTAIN.values(), ids=CERTAIN.keys())
def test_an_answer_without_plain_parentheses_is_heard(reply: str) -> None:
    final = parse_reply(reply).final
    assert final is not None
    assert (final, final.is_certain) == (Directive("text", "42"), True)


@pytest.mark.parametrize("reply", NAMES.values(), ids=NAMES.keys())
def test_a_variable_is_named_in_other_ways_too(reply: str) -> None:
    assert parse_reply(reply).final == Directive("variable", "total")


@pytest.mark.parametrize(("reply", "understood"), OPEN.values(), ids=OPEN.keys())
def test_what_can_be_read_in_two_ways_is_asked_about(reply: str, understood: str) -> None:
    final = parse_reply(reply).final
    assert final is not None
    assert (final.value, final.is_certain) == (understood, False)


@pytest.mark.parametrize("reply", NO_FINALS.values(), ids=NO_FINALS.keys())
def test_words_around_the_word_final_are_no_answer(reply: str) -> None:
    assert parse_reply(reply).final is None


@pytest.mark.parametrize("reply", WRITTEN.values(), ids=WRITTEN.keys())
def test_code_in_other_wrappers_is_run(reply: str) -> None:
    parsed = parse_reply(reply)
    assert parsed.blocks == (CodeBlock(CODE),)
    assert parsed.final is None


def test_the_same_final_twice_is_certain() -> None:
    final = parse_reply("FINAL(Amber)\n\nFINAL(amber)").final
    assert final is not None
    assert (final.value, final.is_certain) == ("Amber", True)


def test_a_name_escaped_for_markdown_is_a_variable() -> None:
    final = parse_reply(r"FINAL(my\_total)").final
    assert final is not None
    assert final.names == ("my_total",)
    assert parse_reply(r"FINAL_VAR(my\_total)").final == Directive("variable", "my_total")


def test_keywords_that_are_no_names_of_answers_stay() -> None:
    for answer in ("x=5", "width=3, height=4", 'answer="a", answer2="b"'):
        assert parse_reply(f"FINAL({answer})").final == Directive("text", answer)


REPEATED = {
    "open brackets": "FINAL[" * 10_000,
    "words": "FINAL " * 10_000,
    "lines": "FINAL\n" * 10_000,
    "brackets": "FINAL[a]\n" * 6_000,
    "backticks behind a word": "FINAL " + "`" * 60_000,
    "open brackets in words": "FINAL [[" * 7_500,
    "tags left open": "[code]" * 10_000,
    "stars": "FINAL" + "*" * 60_000,
    "odd fences": "'''python\n" * 6_000,
    "named fences": "```answer\n" * 6_000,
    "labels above fences": "Final Answer:\n```\n" * 3_000,
    "escapes": r"FINAL\(" * 8_000,
    "actions": "Action: python\nAction Input: x = 1\n" * 1_500,
    "tags": "<FINAL_VAR>" * 5_000,
    "blanks behind the word": "FINAL a" + " " * 60_000 + "b",
}


@pytest.mark.parametrize("reply", REPEATED.values(), ids=REPEATED.keys())
def test_forms_that_repeat_without_end_are_still_read(reply: str) -> None:
    parsed = parse_reply(reply)
    assert parsed.blocks or parsed.final or parsed.problem


def test_brackets_inside_an_answer_in_brackets_are_a_part_of_it() -> None:
    final = parse_reply("FINAL[The text says:\nFINAL <draft> was\nsent]").final

    assert final is not None
    assert final.value == "The text says:\nFINAL <draft> was\nsent"
