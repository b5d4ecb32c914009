"""Typed answers in the dialects that models write: JSON, Python, and mixtures of the two."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_mcp.engine.parsing.typed_answer import check_schema, read_typed_answer
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.sandbox.types import Final

COUNT = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "ok": {"type": "boolean"},
        "name": {"type": ["string", "null"]},
    },
    "required": ["count", "ok"],
    "additionalProperties": False,
}
NAMES = {"type": "array", "items": {"type": "string"}}
NUMBER = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
DAY = {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}
MEANT = {"count": 3, "ok": True}
DIALECTS: dict[str, tuple[str, Any, Any]] = {
    "comments of JavaScript": ('{"count": 3, // all\n "ok": /* so */ true}', COUNT, MEANT),
    "an address, and a comment": (
        '{"count": 3, "ok": true, "name": "http://x//y"} // done',
        COUNT,
        {**MEANT, "name": "http://x//y"},
    ),
    "comments of Python": ("{\n  'count': 3,  # all\n  'ok': True,\n}", COUNT, MEANT),
    "keys without quotes": ("{count: 3, ok: true}", COUNT, MEANT),
    "words of both": ("{'count': 3, 'ok': true, 'name': None}", COUNT, {**MEANT, "name": None}),
    "curly quotes": ("{“count”: 3, “ok”: true}", COUNT, MEANT),
    "a call of dict": ("dict(count=3, ok=True)", COUNT, MEANT),
    "an OrderedDict": ("OrderedDict([('count', 3), ('ok', True)])", COUNT, MEANT),
    "a defaultdict": ("defaultdict(<class 'int'>, {'count': 3, 'ok': True})", COUNT, MEANT),
    "a date": ("{'day': datetime.date(2026, 1, 2)}", DAY, {"day": "2026-01-02"}),
    "a decimal": ("{'x': Decimal('1.5')}", NUMBER, {"x": 1.5}),
    "a number of numpy": ("{'x': np.float64(1.5)}", NUMBER, {"x": 1.5}),
    "a set": ("frozenset({'a'})", NAMES, ["a"]),
    "a tuple without brackets": ("'a', 'b'", NAMES, ["a", "b"]),
    "JSON Lines": (
        '{"count": 1, "ok": true}\n{"count": 2, "ok": true}',
        {"type": "array", "items": COUNT},
        [{"count": 1, "ok": True}, {"count": 2, "ok": True}],
    ),
    "a draft before it": (
        'First:\n```json\n{"count": 1, "ok": true}\n```\nCorrected:\n'
        '```json\n{"count": 3, "ok": true}\n```',
        COUNT,
        MEANT,
    ),
    "braces in words": ('The set {a, b} gives {"count": 3, "ok": true}.', COUNT, MEANT),
    "brackets of notes": ('See [1]: {"count": 3, "ok": true} [2]', COUNT, MEANT),
    "a list in words": ('See [note]. They are ["a", "b"].', NAMES, ["a", "b"]),
    "a line end in a text": (
        '{"count": 3, "ok": true, "name": "a\nb"}',
        COUNT,
        {**MEANT, "name": "a\nb"},
    ),
    "an escape that JSON lacks": (
        r'{"count": 3, "ok": true, "name": "\d+"}',
        COUNT,
        {**MEANT, "name": r"\d+"},
    ),
    "JSON in a string": (r'"{\"count\": 3, \"ok\": true}"', COUNT, MEANT),
    "quotes that are escaped": (r"{\"count\": 3, \"ok\": true}", COUNT, MEANT),
    "braces of a format string": ('{{"count": 3, "ok": true}}', COUNT, MEANT),
    "an object around it": ('{"answer": {"count": 3, "ok": true}}', COUNT, MEANT),
    "a list around it": ('[{"count": 3, "ok": true}]', COUNT, MEANT),
    "an object around a list": ('{"names": ["a", "b"]}', NAMES, ["a", "b"]),
    "an assignment": ('result = {"count": 3, "ok": True}', COUNT, MEANT),
    "a fence on one line": ('```json {"count": 3, "ok": true} ```', COUNT, MEANT),
    "a null of Python": ("None", {"type": ["string", "null"]}, None),
    "an older draft": (
        "5",
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "minimum": 0,
            "exclusiveMinimum": True,
        },
        5,
    ),
}


PAGE = {
    "$defs": {
        "page": {
            "type": "object",
            "properties": {
                "number": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "kind": {"enum": ["cover", "text"]},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/page"}},
            },
            "required": ["number"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/page",
}
INTEGER = {"type": "integer"}
SPELLED: dict[str, tuple[str, Any, Any]] = {
    "a number in quotes": ('{"count": "3", "ok": true}', COUNT, MEANT),
    "groups of digits": ("1,234,567", INTEGER, 1234567),
    "a sign of money": ("$1,234.50", {"type": "number"}, 1234.5),
    "a minus as it is printed": ("\u22125", INTEGER, -5),
    "a boolean in quotes": ('{"count": 3, "ok": "true"}', COUNT, MEANT),
    "yes": ("Yes.", {"type": "boolean"}, True),
    "no": ('{"count": 3, "ok": "no"}', COUNT, {**MEANT, "ok": False}),
    "null in quotes": (
        '{"x": "null"}',
        {"type": "object", "properties": {"x": {"type": ["null"]}}},
        {"x": None},
    ),
    "a number for a text": ('{"day": 42}', DAY, {"day": "42"}),
    "an enum in another case": ("Positive", {"enum": ["positive", "negative"]}, "positive"),
    "an enum in bold": ("**no**.", {"enum": ["yes", "no"]}, "no"),
    "an enum of numbers": ('"2"', {"enum": [1, 2]}, 2),
    "one object for a list": ('{"count": "3", "ok": true}', {**NAMES, "items": COUNT}, [MEANT]),
    "a list for an object of it": (
        '["a"]',
        {"type": "object", "properties": {"names": NAMES}, "required": ["names"]},
        {"names": ["a"]},
    ),
    "a key in another spelling": ('{"Count": 3, "OK": true}', COUNT, MEANT),
    "confidence beside it": (
        '{"answer": {"count": 3, "ok": true}, "confidence": 0.9}',
        COUNT,
        MEANT,
    ),
    "two objects around it": ('{"result": {"answer": {"count": 3, "ok": true}}}', COUNT, MEANT),
    "references, deeply": (
        '{"number": "1", "parts": [{"number": null, "kind": "Cover"}, {"number": "1,002"}]}',
        PAGE,
        {"number": 1, "parts": [{"number": None, "kind": "cover"}, {"number": 1002}]},
    ),
}


@pytest.mark.parametrize("name", SPELLED)
def test_a_value_that_is_only_spelled_otherwise_fits(name: str) -> None:
    text, schema, meant = SPELLED[name]
    check_schema(schema)
    found = read_typed_answer(Final(text, "str", None), schema)
    assert (found, type(found)) == (meant, type(meant))


def test_a_value_that_fits_as_it_is_stays_as_it_is() -> None:
    for text, schema in (
        ('"42"', {"type": "string"}),
        ('"yes"', {}),
        ('"A"', {"enum": ["a", "A"]}),
    ):
        assert read_typed_answer(Final(text, "str", None), schema) == text.strip('"')


@pytest.mark.parametrize("name", DIALECTS)
def test_a_typed_answer_is_read_in_each_dialect(name: str) -> None:
    text, schema, meant = DIALECTS[name]
    check_schema(schema)
    assert read_typed_answer(Final(text, "str", None), schema) == meant


@pytest.mark.parametrize(
    ("text", "schema", "reason"),
    [
        ('{"x": NaN}', NUMBER, "not JSON"),
        ('{"x": 1e400}', NUMBER, "no infinite number"),
        ('{"count": 3, "ok": true', COUNT, "not JSON that can be read"),
        ('{"count": 1,000, "ok": true}', COUNT, "not JSON that can be read"),
        ('{"count": 3, "ok": true, "note": "x"}', COUNT, "'note' was unexpected"),
        ("count: 3\nok: true", COUNT, "is not of type 'object'"),
        ("Maybe", {"enum": ["yes", "no"]}, "is not one of"),
        ("A", {"enum": ["a", "á"], "maxLength": 0}, "is not one of"),
        ("yes", {"enum": ["Yes", "YES"]}, "is not one of"),
        ("1,234", {"type": "number"}, "is not of type 'number'"),
        ("12%", {"type": "number"}, "is not of type 'number'"),
        ("3 or 5", {"type": "integer"}, "is not of type 'integer'"),
        ('{"count": "3.5", "ok": true}', COUNT, "is not of type 'integer'"),
        ('{"Count": 3, "COUNT": 4, "ok": true}', COUNT, "'count' is a required property"),
        ("Alice, Bob", NAMES, "is not of type 'array'"),
        ("[" * 3000 + "]" * 3000, NAMES, "not JSON that can be read"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(text: str, schema: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_typed_answer(Final(text, "str", None), schema)
    assert reason in caught.value.message
