"""`FINAL(...)` and `FINAL_VAR(...)` as models write them outside code."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from rlm_mcp.engine.parsing.cited_finals import split_citations
from rlm_mcp.engine.parsing.python_source import parse_arguments

_OPENING = re.compile(
    r"^(?P<marks>(?:[#>*+\-•~`_ \t]|\d+[.)][ \t])*)"
    r"(?:(?:the |my )?(?:final )?answer(?: is)?[*_]*:[*_` \t]*)?"
    r"(?P<word>(?P<var>FINAL[_ ]?VAR)|FINAL(?:[_ ]?ANSWER)?)[*_`]*(?P<gap>[ \t]*)[(（]",
    re.IGNORECASE,
)
# "FINAL: 42", "**Final answer:** 42", "FINAL_VAR: total"; in capitals, unlike in a sentence.
_COLON = re.compile(
    r"^(?P<marks>(?:[#>*+\-•~`_ \t]|\d+[.)][ \t])*)"
    r"(?:(?P<var>FINAL[_ ]?VAR)|FINAL(?:[_ ]ANSWER)?|(?i:(?:the |my )?final answer))"
    r"[*_`]*[ \t]*[:：][*_`]*(?P<body>.*)$"
)
# [0, 10) and ]0, 1) close no parenthesis, nor do \left( and \right).
_HALF_OPEN = re.compile(r"[\[\]][^\[\]()\n]{1,60}[,;][^\[\]()\n]{1,60}$")
_OPEN_LEFT = re.compile(r"[^\[\]()\n]{1,60}[,;][^\[\]()\n]{1,60}\]")
_LATEX_SIZE = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)[ ]?$")
# "FINAL(x) will be called later" is a sentence about the call.
_SENTENCE = re.compile(
    r"^[ \t*_]*(?:will|would|should|can|could|once|when|after|later|until|if|to|ends?"
    r"|is (?:how|what|used|called))\b",
    re.IGNORECASE,
)
_LINE_REST = re.compile(r"[^\n]*")
_ONLY_MARKS = re.compile(r"^[\s*_`~.]*$")
_LIST_MARK = re.compile(r"(?:^|[\s:;,.])(\d{1,2}|[a-zA-Z])$")
# A default, as in `args=()`, is no face.
_FACE = re.compile(r"(?:[:;]|(?<![\w\])])=)['\-]?$")
_LITERAL_START = re.compile(r"\s*(?:\w+\s*=\s*)?[rRfFbBuU]{0,2}[\"']")
# Placeholders that templates have where the answer should be.
_PLACEHOLDER = re.compile(
    r"\.\.\.|…|[<\[{(]?(?:(?:insert|put|write) )?(?:the |your )?(?:final |your )?_?answer"
    r"(?: here| goes here)?[>\]})]|(?:insert |put )?your[ _](?:final[ _])?answer(?: here)?",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"[ \t]+\S|[()]")
_QUOTED = re.compile(r"\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)")
_WIDE = str.maketrans("（）", "()")
_QUOTES = (('"""', '"""'), ("'''", "'''"), ('"', '"'), ("'", "'"), ("“", "”"), ("「", "」"))
_LAST_PARENTHESIS = re.compile(r"(?P<last>[)）])[*_.]*`?[*_.]*$")
_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
_METHODS = frozenset({"join", "format", "strip", "replace", "split", "dumps", "most_common", "get"})
_BUILTINS = frozenset(vars(builtins))
_KEYWORD = re.compile(r"\s*(?:final_)?(?:answer|value|result|text)\s*=(?!=)\s*")
_MAX_TRIES = 100


FinalKind = Literal["text", "variable", "code", "empty", "bad_variable"]


@dataclass(frozen=True)
class FoundFinal:
    """A final at the start of a line.

    Args:
        kind: `text` and `variable` as in `Directive`; `code` is an expression to be run as
            `FINAL(value)`; the others say why it cannot be used.
        value: text, name or expression.
        length: characters from the start of the line to the end of the directive.
        closed: whether its parenthesis was closed.
        is_name: whether a text is one bare word that could name a variable.
        is_certain: whether the line holds no other parenthesis that may be the end.
        citations: quotes that were given with it.
    """

    kind: FinalKind
    value: str
    length: int
    closed: bool = True
    is_name: bool = False
    is_certain: bool = True
    citations: tuple[str, ...] = ()


def is_placeholder(answer: str) -> bool:
    """Whether an answer is a placeholder, such as a template has."""
    return _PLACEHOLDER.fullmatch(answer.strip()) is not None


def opens_final(line: str) -> bool:
    """Whether a final may begin in this line."""
    return _OPENING.match(line) is not None or _COLON.match(line) is not None


def read_final(text: str) -> FoundFinal | None:
    """Read the final that `text` begins with, which may span many lines.

    None when the words only mention one.
    """
    opening = _OPENING.match(text)
    if opening is None:
        return _read_colon(text)
    if opening["gap"] and not opening["word"].isupper():
        return None
    body = text[opening.end() :]
    length = _argument_length(body.translate(_WIDE))
    argument = body if length is None else body[:length]
    if length is not None and _is_mention(opening["marks"], body[length + 1 :]):
        return None
    if is_placeholder(argument):
        return None
    end = len(text) if length is None else min(len(text), opening.end() + length + 1)
    argument, citations = split_citations(argument)
    is_variable, argument = _unwrapped(bool(opening["var"]), argument.strip())
    kind, value = _read_variable(argument) if is_variable else _read_text(argument)
    is_name = kind == "text" and value == argument and value.isidentifier()
    is_certain = length is None or not _has_another_end(body, length)
    found = FoundFinal(kind, value, end, closed=length is not None, citations=citations)
    return replace(found, is_name=is_name, is_certain=is_certain)


def _read_colon(text: str) -> FoundFinal | None:
    line = _LINE_REST.match(text)
    opening = _COLON.match(line[0]) if line else None
    if line is None or opening is None:
        return None
    body = opening["body"].strip().strip("`").strip()
    body = re.sub(r"^[*_]+[ \t]*|[ \t]*[*_]+$", "", body)
    end = line.end()
    if not body:  # the answer is on the lines below
        rest = text[end:].strip("\n")
        if not rest.strip() or rest.lstrip().startswith(("```", "~~~")):
            return None
        body, end = rest.strip(), len(text)
    if is_placeholder(body) or opens_final(body):
        return None
    kind, value = _read_variable(body) if opening["var"] else _read_text(body)
    is_name = kind == "text" and value == body and value.isidentifier()
    return FoundFinal(kind, value, end, is_name=is_name)


def _has_another_end(body: str, length: int) -> bool:
    """Whether the rest of the line has an unmatched `)`, which may be the end instead."""
    if _LITERAL_START.match(body):
        return False
    rest = _LINE_REST.match(body.translate(_WIDE), length + 1)
    depth = 0
    for character in re.sub(r"[:;=8][-^']?[()]", "", rest[0] if rest else ""):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return True
    return False


def _unwrapped(is_variable: bool, argument: str) -> tuple[bool, str]:
    """Return the inner of two nested finals, as in `FINAL(FINAL_VAR(x))`."""
    inner = _OPENING.match(argument)
    body = argument[inner.end() :] if inner else ""
    if inner is None or _argument_length(body.translate(_WIDE)) != len(body) - 1:
        return is_variable, argument
    return bool(inner["var"]), body[:-1]


def _is_mention(marks: str, after: str) -> bool:
    rest = _LINE_REST.match(after)
    line = rest[0] if rest else ""
    if "`" in marks and line.startswith("`"):
        return not _ONLY_MARKS.match(line)
    return bool(_SENTENCE.match(line))


def _argument_length(body: str) -> int | None:
    """Find the parenthesis that closes the argument; None when there is none.

    Strictness falls step by step: a Python literal, then plain balance that ends where the text
    does, then text whose faces and list marks, as in "1) first 2) then", are text and not
    parentheses, then plain balance wherever it ends, at last without quotes.
    """
    if ")" not in body:
        return None
    if _LITERAL_START.match(body):
        length = _literal_length(body)
        if length is not None:
            return length
    for quotes in (True, False):
        length = _balanced_length(body, quotes=quotes, marks=False)
        if length is not None and _ends_with(body, length):
            return length
    for quotes in (True, False):
        length = _balanced_length(body, quotes=quotes, marks=True)
        if length is not None and _is_plausible(body, length):
            return length
    for quotes in (True, False):
        length = _balanced_length(body, quotes=quotes, marks=False)
        if length is not None:
            return length
    return _unbalanced_length(body)


def _unbalanced_length(body: str) -> int | None:
    """End where the paragraph ends with a parenthesis.

    It may close the argument, or one in it when the last was forgotten; kept, it harms least.
    """
    paragraph = body.split("\n\n", 1)[0].rstrip()
    end = _LAST_PARENTHESIS.search(paragraph, max(0, len(paragraph) - 10))
    return end.end("last") if end else None


def _literal_length(body: str) -> int | None:
    for count, match in enumerate(re.finditer(r"\)", body)):
        if count >= _MAX_TRIES:
            return None
        call = parse_arguments(body[: match.start()])
        if call is not None:
            return match.start()
    return None


def _ends_with(body: str, length: int) -> bool:
    """Whether the paragraph ends with the argument, so that no other parenthesis can close it."""
    return bool(_ONLY_MARKS.match(body[length + 1 :].split("\n\n", 1)[0]))


def _is_plausible(body: str, length: int) -> bool:
    """Text over several lines ends where a line ends."""
    rest = _LINE_REST.match(body, length + 1)
    return "\n" not in body[:length] or bool(rest and _ONLY_MARKS.match(rest[0]))


def _balanced_length(body: str, *, quotes: bool, marks: bool) -> int | None:
    depth = listed = 0
    for index, parenthesis in _parentheses(body, quotes=quotes):
        before = body[max(0, index - 4) : index]
        if marks and _FACE.search(before) and _goes_on(body, index):
            continue
        if marks and _is_notation(body, index, parenthesis):
            continue
        if parenthesis == "(":
            depth += 1
        elif depth:
            depth -= 1
        elif marks and _is_list_mark(before, listed + 1) and _goes_on(body, index):
            listed += 1
        else:
            return index
    return None


def _is_notation(body: str, index: int, parenthesis: str) -> bool:
    """Whether a parenthesis belongs to mathematical notation that does not balance."""
    before = body[max(0, index - 130) : index]
    if _LATEX_SIZE.search(before):
        return True
    if parenthesis == "(":
        return _OPEN_LEFT.match(body, index + 1) is not None
    is_last = ")" not in body[index + 1 :]
    return not is_last and _HALF_OPEN.search(before) is not None


def _parentheses(body: str, *, quotes: bool) -> Iterator[tuple[int, str]]:
    pattern = rf"{_QUOTED.pattern}|[()]" if quotes else r"[()]"
    for match in re.finditer(pattern, body):
        if match[0] in "()":
            yield match.start(), match[0]


def _goes_on(body: str, index: int) -> bool:
    """Whether more text follows the parenthesis on its line."""
    return _GOES_ON.match(body, index + 1) is not None


def _is_list_mark(before: str, number: int) -> bool:
    match = _LIST_MARK.search(before)
    if match is None:
        return False
    mark = match[1]
    return int(mark) == number if mark.isdecimal() else ord(mark.lower()) - 96 == number


def _read_text(argument: str) -> tuple[FinalKind, str]:
    node = _only_argument(argument)
    if node is not None and (keyword := _KEYWORD.match(argument)):
        argument = argument[keyword.end() :]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ("text", node.value) if node.value.strip() else ("empty", "")
    if node is not None and _is_computed(node):
        return "code", argument.strip()
    text = _unquoted(argument.strip())
    return ("text", text) if text else ("empty", "")


def _read_variable(argument: str) -> tuple[FinalKind, str]:
    name = argument.strip().strip("`*<>").strip()
    node = _only_argument(name)
    if node is None:
        return ("bad_variable", argument.strip()) if name else ("empty", "")
    if not isinstance(node, ast.Constant):
        return "variable", ast.get_source_segment(f"_({name}\n)", node) or name
    if not isinstance(node.value, str):
        return "text", name
    inner = node.value.strip()
    if _only_argument(inner) is None:
        return ("text", inner) if inner else ("empty", "")
    return "variable", inner


def _only_argument(text: str) -> ast.expr | None:
    """Parse `text` as the one argument of a call, with or without a keyword."""
    call = parse_arguments(text)
    if call is None or len(call.args) + len(call.keywords) != 1:
        return None
    node = call.args[0] if call.args else call.keywords[0].value
    return None if isinstance(node, ast.Starred) else node


def _is_computed(node: ast.expr) -> bool:
    """Whether the text is clearly an expression whose value is the answer."""
    if isinstance(node, ast.JoinedStr):
        return True
    if not isinstance(node, ast.Call | ast.BinOp | ast.Subscript | ast.IfExp | ast.ListComp):
        return False
    return any(_calls_python(part) for part in ast.walk(node))


def _calls_python(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return isinstance(node, ast.FormattedValue)
    if isinstance(node.func, ast.Name):
        return node.func.id in _BUILTINS
    return isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS


def _unquoted(text: str) -> str:
    """Remove quotation marks around the whole text, whether or not it is a Python literal."""
    for first, last in _QUOTES:
        inner = text[len(first) : -len(last)]
        if inner and len(text) > 2 * len(first) and text.startswith(first) and text.endswith(last):
            # An apostrophe within a word closes nothing; any other mark may.
            return text if last in _APOSTROPHE.sub("", inner) else inner.strip()
    return text
