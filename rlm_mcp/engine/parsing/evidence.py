"""Whether an answer is supported by what was printed. Pure.

Weak models hand over made-up values: `FINAL("42")` right after an error, or before a look at the
text. A value that the code computed needs no evidence; one that the model wrote itself has to be
found in what it was shown.
"""

from __future__ import annotations

import ast
import builtins
import re

from rlm_mcp.engine.parsing.python_source import read_python

EMPTY_ANSWERS = frozenset({"", "0", "0.0", "[]", "{}", "()", "set()", "None"})

_JUDGEMENTS = frozenset({"yes", "no", "true", "false", "none", "not", "mentioned", "unknown"})
# Longer ones are sentences, which say what was found in words of their own.
_MAX_CHECKED_CHARS = 80
_MIN_WORD_CHARS = 4


def is_empty_output(output: str) -> bool:
    """Whether what a cell printed is nothing, or zeros and empty values alone."""
    return all(
        each.strip(",()") in EMPTY_ANSWERS | {"False", "-1", "set"} for each in output.split()
    )


def has_found_nothing(output: str) -> bool:
    """Whether what a cell printed is empty, or a search that found nothing."""
    return is_empty_output(output) or output.strip().startswith("search: nothing found")


def has_many_ties(output: str) -> bool:
    """Whether a search found far more lines that match as well than it showed."""
    return output.rstrip().endswith("match just as well: go through all of them with code]")


def is_yes(answer: str) -> bool:
    """Whether an answer says yes."""
    return _words(answer)[:1] in (["yes"], ["true"])


def is_computed(code: str) -> bool:
    """Whether the answer that this code gives comes from the text or from earlier variables.

    False if `FINAL` is given a literal, or if the code reads no name that was there before. A name
    in `FINAL_VAR` counts as one that is read.
    """
    tree = read_python(code).tree
    if tree is None:
        return True
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    known = made | {"FINAL"} | vars(builtins).keys()
    if all(node.id in known for node in names):
        return False
    return not any(map(_hands_over_literal, nodes))


def is_shown(answer: str, shown: str, question: str) -> bool:
    """Whether what was shown contains the answer: each of its numbers and words.

    Args:
        answer: as it was given; long ones and judgements such as `yes` need not be shown.
        shown: outputs and what the first message showed of the text.
        question: its words may be used in the answer, its numbers may not.
    """
    if len(answer) > _MAX_CHECKED_CHARS or _holds_whole(shown.casefold(), answer.casefold()):
        return True
    words = set(_words(shown))
    allowed = words | set(_words(question)) | _JUDGEMENTS
    return all(
        word in words if word.isdigit() else word in allowed or len(word) < _MIN_WORD_CHARS
        for word in _words(answer)
    )


def is_echo(answer: str, question: str) -> bool:
    """Whether an answer is made of words of the question alone, judgements apart."""
    words = set(_words(answer))
    return words <= set(_words(question)) and words.isdisjoint(_JUDGEMENTS)


def number_tested_as_text(code: str) -> str:
    """Return a literal with a number that this code searches for as text: `"500 ms" in line`."""
    tree = read_python(code).tree
    for node in ast.walk(tree) if tree else ():
        if not (isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In)):
            continue
        sought = node.left.value if isinstance(node.left, ast.Constant) else None
        if isinstance(sought, str) and any(character.isdigit() for character in sought):
            return sought
    return ""


def assigns_context(code: str) -> bool:
    """Whether this code assigns `context` outside of a function."""
    if code.isascii() and "context" not in code:  # Python folds letters of other alphabets
        return False
    tree = read_python(code).tree
    return tree is not None and any(map(_stores_context, tree.body))


def _hands_over_literal(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
        return False
    if node.func.id != "FINAL":
        return False
    return not any(isinstance(each, ast.Name | ast.Call) for each in ast.walk(node.args[0]))


def _stores_context(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    return any(
        isinstance(node, ast.Name) and node.id == "context" and isinstance(node.ctx, ast.Store)
        for node in ast.walk(statement)
    )


def _holds_whole(text: str, part: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
