"""`FINAL(...)` and `FINAL_VAR(...)` as models write them outside code."""

from __future__ import annotations

import ast
import builtins
import re
from dataclasses import dataclass, replace
from typing import Literal

from rlm_mcp.engine.parsing.argument_end import argument_length, has_another_end
from rlm_mcp.engine.parsing.cited_finals import split_citations
from rlm_mcp.engine.parsing.python_source import free_names, parse_arguments

# Marks of Markdown, arrows and small pictures.
_MARK = r"[#>*+\-•~`_ \t\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]"
_OPENING = re.compile(
    rf"^(?P<marks>(?:{_MARK}|(?:\d+|[a-z])[.)][ \t])*)"
    r"(?:(?:the |my )?(?:final )?answer(?: is)?[*_]*:[*_` \t]*)?"
    r"(?P<word>(?P<var>FINAL[_ .-]?VAR)|FINAL(?:[_ ]?ANSWER)?)[*_`]*(?P<gap>[ \t]*)[(（]",
    re.IGNORECASE,
)
# What models that reply in other languages call it.
LABELS = (
    r"(?:(?:la|a|mi|ma|de|het|die|meine) )?(?:r[ée]ponse finale|respuesta final|resposta final"
    r"|risposta finale|(?:endgültige|finale) antwort|(?:definitie(?:f|ve)|uiteindelijke?) antwoord"
    r"|eindantwoord|slut(?:lig|giltig)t svar|ostateczna odpowiedź|konečná odpověď|jawaban akhir"
    r"|(?:nihai|son) (?:cevap|yanıt)|(?:câu trả lời|đáp án) cuối cùng"
    r"|(?:окончательный|итоговый|финальный) ответ|остаточна відповідь"
    r"|(?:الإجابة|الجواب) النهائية?|پاسخ نهایی|अंतिम उत्तर"
    r"|最终(?:答案|回答)|最終(?:答案|回答)|최종 ?(?:답변|답))"
    r"(?: (?:est|es|é|è|ist|lautet|is|adalah|là)|[是为為はは은])?"
)
# "FINAL: 42", "**Final answer:** 42", "FINAL_VAR: total"; in capitals, unlike in a sentence.
_COLON = re.compile(
    rf"^(?P<marks>(?:{_MARK}|\d+[.)][ \t])*)"
    r"(?:(?P<var>FINAL[_ .-]?VAR)|FINAL(?:[_ ]ANSWER)?|(?i:(?:the |my )?final answer(?: is)?"
    rf"|{LABELS}))[*_`]*[ \t]*(?:[:：]|->|=>|→)[*_`]*(?P<body>.*)$"
)
_ESCAPED = re.compile(
    r"^[#>*+\-•~`_ \t]*FINAL(?:\\_(?:VAR|ANSWER)\\?\(|\\\()", re.IGNORECASE | re.MULTILINE
)
_ESCAPE = re.compile(r"\\([\\_*()\[\]{}#.!>`-])")
# "FINAL(x) will be called later" is a sentence about the call.
_SENTENCE = re.compile(
    r"^[ \t*_]*(?:will|would|should|can|could|once|when|after|later|until|if|to|ends?"
    r"|is (?:how|what|used|called))\b",
    re.IGNORECASE,
)
_LINE_REST = re.compile(r"[^\n]*")
_ONLY_MARKS = re.compile(r"^[\s*_`~.]*$")
# Placeholders that templates have where the answer should be.
_PLACEHOLDER = re.compile(
    r"\.\.\.|…|_{2,}|tbd|to be determined"
    r"|[<\[{($%]*(?:(?:insert|put|write)[ _])?(?:the[ _]|your[ _])?(?:final[ _]|your[ _])?_?answer"
    r"(?:[ _]here|[ _]goes[ _]here)?[>\]})%]+|\$\{?answer\}?"
    r"|(?:insert[ _]|put[ _])?your[ _](?:final[ _])?answer(?:[ _](?:goes[ _])?here)?",
    re.IGNORECASE,
)
# A name that was to be filled in: {total}, ${total}, <total>, `total`.
_MARKED_NAME = re.compile(r"[`<{$%]+[ ]?(?P<name>[A-Za-z_]\w*)[ ]?[`>}%]*")
# A box or tag around the whole answer.
_WHOLE_BOX = re.compile(r"\$*\\boxed[ ]?\{(?P<body>(?:[^{}]|\{[^{}]*\})*)\}\$*\.?")
_WHOLE_TAG = re.compile(
    r"<(?P<tag>final|answer|final_answer|result)>\s*(?P<body>.*?)\s*</(?P=tag)>",
    re.DOTALL | re.IGNORECASE,
)
_QUOTES = (
    *(('"""', '"""'), ("'''", "'''"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’")),
    *(("„", "“"), ("«", "»"), ("「", "」"), ("『", "』")),
)
_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
_METHODS = frozenset({"join", "format", "strip", "replace", "split", "dumps", "most_common", "get"})
_BUILTINS = frozenset(vars(builtins))
_ANSWER_NAME = r"(?:final_)?(?:answer|value|result|text|output|response|content)"
_KEYWORD = re.compile(rf"\s*{_ANSWER_NAME}\s*=(?!=)\s*")
# What models give beside the answer, in one call or one object.
BESIDE = re.compile(
    r"reasoning|thoughts?|thinking|explanation|rationale|justification|analysis|confidence"
    r"|certainty|evidence|sources?|status|type|ready|done|steps?|notes?|summary|plan",
    re.IGNORECASE,
)


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
        expression: what a text is as Python, such as `total` or `found["k"]`; empty where it is
            words. Its value is meant where all of `names` are variables.
        names: those that the expression reads.
        is_certain: whether the line holds no other parenthesis that may be the end.
        citations: quotes that were given with it.
    """

    kind: FinalKind
    value: str
    length: int
    closed: bool = True
    expression: str = ""
    names: tuple[str, ...] = ()
    is_certain: bool = True
    citations: tuple[str, ...] = ()


def is_placeholder(answer: str) -> bool:
    """Whether an answer is a placeholder, such as a template has."""
    return _PLACEHOLDER.fullmatch(answer.strip()) is not None


def without_escapes(text: str) -> str:
    """Undo the escapes of Markdown where a final is written with them: `FINAL\\_VAR(total)`."""
    opening = _ESCAPED.search(text)
    if opening is None:
        return text
    return text[: opening.start()] + _ESCAPE.sub(r"\1", text[opening.start() :])


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
    length = argument_length(body)
    argument = body if length is None else body[:length]
    if length is not None and _is_mention(opening["marks"], body[length + 1 :]):
        return None
    if is_placeholder(argument):
        return None
    end = len(text) if length is None else min(len(text), opening.end() + length + 1)
    argument, citations = split_citations(argument)
    is_variable, argument = _unwrapped(bool(opening["var"]), argument.strip())
    argument = argument if is_variable else _without_keyword(argument)
    kind, value = _read_variable(argument) if is_variable else _read_text(argument)
    is_certain = length is None or not has_another_end(body, length)
    found = FoundFinal(kind, value, end, closed=length is not None, citations=citations)
    return replace(_with_names(found, argument), is_certain=is_certain)


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
    return _with_names(FoundFinal(kind, value, end), body)


def _with_names(found: FoundFinal, argument: str) -> FoundFinal:
    """Note which variables a text may be made of; text in quotes is made of none."""
    if found.kind != "text" or found.value != argument:
        return found
    marked = _MARKED_NAME.fullmatch(argument)
    expression = marked["name"] if marked else argument.replace("\\_", "_")
    node = _only_argument(expression)
    names = free_names(node) if node is not None and not _reads_as_words(node) else ()
    return replace(found, expression=expression, names=names) if names else found


def _unwrapped(is_variable: bool, argument: str) -> tuple[bool, str]:
    """Return the inner of two nested finals, as in `FINAL(FINAL_VAR(x))`."""
    inner = _OPENING.match(argument)
    body = argument[inner.end() :] if inner else ""
    if inner is None or argument_length(body) != len(body) - 1:
        return is_variable, argument
    return bool(inner["var"]), body[:-1]


def _is_mention(marks: str, after: str) -> bool:
    rest = _LINE_REST.match(after)
    line = rest[0] if rest else ""
    if "`" in marks and line.startswith("`"):
        return not _ONLY_MARKS.match(line)
    return bool(_SENTENCE.match(line))


def _read_text(argument: str) -> tuple[FinalKind, str]:
    node = _only_argument(argument)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ("text", node.value) if node.value.strip() else ("empty", "")
    if node is not None and _is_computed(node):
        return "code", argument.strip()
    text = _unquoted(argument.strip())
    boxed = _WHOLE_BOX.fullmatch(text) or _WHOLE_TAG.fullmatch(text)
    text = boxed["body"].strip() if boxed else text
    return ("text", text) if text else ("empty", "")


def _without_keyword(argument: str) -> str:
    """Return the answer alone of what was given by keywords, and beside it."""
    argument = _without_beside(argument)
    keyword = _KEYWORD.match(argument)
    is_only = keyword is not None and _only_argument(argument) is not None
    return argument[keyword.end() :].strip() if keyword and is_only else argument


def _without_beside(argument: str) -> str:
    """Return the only answer in `answer="42", confidence=0.9`, or in `"42", confidence=0.9`."""
    call = parse_arguments(argument) if "=" in argument else None
    if call is None or len(call.args) > 1 or len(call.args) + len(call.keywords) < 2:
        return argument
    named = {keyword.arg or "**": keyword.value for keyword in call.keywords}
    answers = [*call.args, *(named[each] for each in named if re.fullmatch(_ANSWER_NAME, each))]
    others = [each for each in named if named[each] not in answers]
    if len(answers) != 1 or not all(map(BESIDE.fullmatch, others)):
        return argument
    return ast.get_source_segment(f"_({argument}\n)", answers[0]) or argument


def _read_variable(argument: str) -> tuple[FinalKind, str]:
    name = argument.replace("\\_", "_").strip().strip("`*<>").strip()
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
    if isinstance(node, ast.JoinedStr | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    if isinstance(node, ast.BinOp) and _joins_text(node):
        return True
    if not isinstance(node, ast.Call | ast.BinOp | ast.Subscript | ast.IfExp):
        return False
    return any(_calls_python(part) for part in ast.walk(node))


def _reads_as_words(node: ast.expr) -> bool:
    """Whether operators that are English words join its parts, as in `x is 1`, `cats and dogs`."""
    in_words = ast.BoolOp | ast.IfExp | ast.Is | ast.IsNot | ast.In | ast.NotIn | ast.Not
    return any(isinstance(part, in_words) for part in ast.walk(node))


def _joins_text(node: ast.BinOp) -> bool:
    """Whether text in quotes is joined with something, or filled in."""
    sides = (node.left, node.right) if isinstance(node.op, ast.Add) else (node.left,)
    is_text = any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in sides)
    deeper = (side for side in sides if isinstance(side, ast.BinOp))
    return isinstance(node.op, ast.Add | ast.Mod) and (is_text or any(map(_joins_text, deeper)))


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
