"""Values as models write them: JSON, literals of Python, and what lies between the two. Pure."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from typing import Any, NoReturn, cast

MAX_LITERAL_CHARS = 1_000_000
_MAX_SPANS = 200
_FAILURES = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, ArithmeticError)
_STRING = r'"(?:[^"\\\n]|\\.)*"' + r"|'(?:[^'\\\n]|\\.)*'"
_COMMENT = re.compile(rf"({_STRING})|(?<!:)//[^\n]*|/\*.*?\*/", re.DOTALL)
_MARK = re.compile(rf"{_STRING}|[\[\]{{}}]")
_BLOCK = re.compile(r"(?:```|~~~)[ \t]*\w*[ \t]*\r?\n?(.*?)\s*(?:```|~~~)", re.DOTALL)
_CLASS = re.compile(r"<class '[\w.]*'>")
_CURLY_QUOTES = str.maketrans("“”„‘’\u00a0", '"""\'\' ')
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "null": None, "undefined": None}
_PARTNER = {"}": "{", "]": "["}


def read_values(text: str) -> Iterator[Any]:
    """Yield what a text says as one value: as JSON, else as Python, else in a mixture of both.

    No value is yielded of a text that ends too early: what is missing may be more than a bracket.
    """
    readers: Sequence[Callable[[str], Any]] = (_as_json, _as_python, _as_mixture)
    for read in readers[: 1 if len(text) > MAX_LITERAL_CHARS else 3]:
        with suppress(*_FAILURES):
            value = read(text)
            yield value
            if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
                yield from read_values(value)  # JSON that was written into a string
            return


def find_pieces(text: str) -> list[str]:
    """Return fenced blocks, and texts in brackets, that have words around them; the last first.

    A model that corrects itself does so behind what it corrects.
    """
    blocks = [match[1].strip() for match in _BLOCK.finditer(text)]
    spans = [text[start:end] for start, end in _bracketed(text)]
    return [piece for piece in (*reversed(blocks), *reversed(spans)) if piece != text]


def read_lines(text: str) -> list[Any] | None:
    """Read JSON Lines: a value in each of several lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    values: list[Any] = []
    with suppress(*_FAILURES):
        for line in lines:
            if line.lstrip()[:1] not in {"{", "["}:
                return None
            values.append(_as_json(line.rstrip().rstrip(",")))
        return values if len(values) > 1 else None
    return None


def _bracketed(text: str) -> Iterator[tuple[int, int]]:
    """Yield where brackets open and close that are in no others."""
    position = 0
    for _ in range(_MAX_SPANS):
        opened: list[str] = []
        start = end = -1
        for match in _MARK.finditer(text, position):
            mark = match[0]
            if mark in "{[":
                start = match.start() if not opened else start
                opened.append(mark)
            elif mark in _PARTNER and opened and opened.pop() != _PARTNER[mark]:
                break
            if mark in _PARTNER and not opened and start >= 0:
                end = match.end()
                break
        if start < 0:
            return
        if end > 0:
            yield start, end
        position = end if end > 0 else start + 1


def _as_json(text: str) -> Any:
    return json.loads(text, strict=False, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _as_python(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        return _value_of(ast.parse(_CLASS.sub("None", text).strip(), mode="eval").body)


def _as_mixture(text: str) -> Any:
    plain = _COMMENT.sub(lambda match: match[1] or " ", text.translate(_CURLY_QUOTES)).strip()
    if plain.startswith(('{\\"', '[{\\"')):
        plain = plain.replace('\\"', '"')
    if plain.startswith("{{") and plain.endswith("}}"):
        plain = plain[1:-1]
    with suppress(ValueError, RecursionError):
        return _as_json(plain)
    return _as_python(plain)


def _value_of(node: ast.expr) -> Any:
    """Evaluate a literal, as JSON has it: lists for tuples and sets, str for keys and dates.

    Raises:
        ValueError: it is none.
    """
    if isinstance(node, ast.Constant):
        return _plain(node.value)
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value_of(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_key_of(key): _value_of(value) for key, value in pairs}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _value_of(node.operand)
        return -number if isinstance(node.op, ast.USub) else +number
    if isinstance(node, ast.Call):
        return _constructed(node)
    raise ValueError("not a literal")


def _key_of(node: ast.expr | None) -> str:
    if isinstance(node, ast.Name) and node.id not in _WORDS:
        return node.id  # {count: 3}
    if node is None:
        raise ValueError("not a literal")
    key = _value_of(node)
    return key if isinstance(key, str) else str(key)


def _plain(value: object) -> Any:
    if isinstance(value, bytes | complex) or value is ...:
        raise ValueError("JSON has no such value")
    return value


def _constructed(node: ast.Call) -> Any:
    """Evaluate a call as the `repr` of a value has it, such as `datetime.date(2026, 1, 2)`."""
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    values = [_value_of(each) for each in node.args]
    named = {each.arg: _value_of(each.value) for each in node.keywords if each.arg}
    if name in {"OrderedDict", "Counter", "defaultdict", "dict", "mappingproxy"}:
        pairs: Any = values[-1] if values else {}
        return {str(key): value for key, value in dict(pairs).items()} | named
    if name in {"set", "frozenset", "list", "tuple", "deque", "array"}:
        return cast("Any", list(values[0]) if values else [])
    return _scalar(name, values, named)


def _scalar(name: str, values: Sequence[Any], named: Mapping[str, Any]) -> Any:
    dated: Mapping[str, type[date | time]] = {"date": date, "datetime": datetime, "time": time}
    if name in dated:
        return dated[name](*values, **named).isoformat()
    if name == "Decimal":
        from decimal import Decimal  # noqa: PLC0415  # few answers have one

        number = Decimal(values[0])
        return int(number) if number == number.to_integral_value() else float(number)
    if len(values) == 1 and (name.startswith(("int", "float", "uint", "str", "bool", "UUID"))):
        return values[0]
    if len(values) == 1 and name.endswith("Path"):
        return values[0]
    raise ValueError("not a literal")
