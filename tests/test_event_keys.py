"""Only the package of events knows the keys of an event's detail: read in the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rlm_mcp

PACKAGE = Path(rlm_mcp.__file__).parent
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if PACKAGE / "events" not in path.parents]
EVENT_MAKERS = {"emit", "_emit", "_tell", "RLMEvent", "NewEvent"}
# They take a detail as it is, whatever its keys.
TAKE_WHOLE_DETAILS = {
    "to_json",
    "from_detail",
    "within_inner_run",
    "inner_path",
    "_with_short_texts",
    "without_texts",
    "dict",
    "_json",
}


def is_detail(node: ast.AST) -> bool:
    """Whether an expression is an event's detail, by its name."""
    return (isinstance(node, ast.Name) and node.id == "detail") or is_details_field(node)


def is_details_field(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "detail"


def read_by_key(node: ast.AST) -> ast.AST | None:
    """The value that is looked into by a key there, if one is."""
    match node:
        case ast.Subscript(value=value):
            return value
        case ast.Match(subject=value, cases=cases):
            parts = [part for case in cases for part in ast.walk(case.pattern)]
            return value if any(isinstance(part, ast.MatchMapping) for part in parts) else None
        case ast.Call(func=ast.Attribute(value=value, attr="get" | "pop" | "setdefault")):
            return value
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[value]):
            return value
        case _:
            return None


def is_written_out(node: ast.AST) -> bool:
    """Whether a detail is written out there as a dict."""
    match node:
        case ast.Assign(targets=[target], value=ast.Dict(keys=[_, *_])):
            return is_detail(target)
        case ast.AnnAssign(target=target, value=ast.Dict(keys=[_, *_])):
            return is_detail(target)
        case ast.keyword(arg="detail", value=ast.Dict(keys=[_, *_])):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args):
            has_dict = any(isinstance(one, ast.Dict) and one.keys for one in args)
            return has_dict and name in EVENT_MAKERS
        case _:
            return False


def passed_on(node: ast.AST) -> list[ast.AST]:
    """What is handed to another as a whole there."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args):
            named = [one.value for one in node.keywords if one.arg == "detail"]
            return [*named, *(args if name in TAKE_WHOLE_DETAILS else ())]
        case _:
            return []


def find_uses(code: str) -> list[int]:
    """The lines in which a module uses the keys of a detail, or might do so later on."""
    nodes = list(ast.walk(ast.parse(code)))
    whole = {id(value) for node in nodes for value in passed_on(node)}
    read = [node for node in nodes if (value := read_by_key(node)) and is_detail(value)]
    taken = [node for node in nodes if is_details_field(node) and id(node) not in whole]
    written = [node for node in nodes if is_written_out(node)]
    return [getattr(node, "lineno", 0) for node in (*read, *taken, *written)]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_but_events_reads_or_writes_a_detail_by_its_keys(module: Path) -> None:
    assert find_uses(module.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "event.detail['code']",
        "detail.get('code')",
        "'code' in event.detail",
        "kept = event.detail",
        "detail = {'code': 1}",
        "emit('warning', 'line', {'code': 1})",
        "NewEvent('warning', detail={'code': 1})",
        "match detail:\n    case {'code': code}: pass",
    ],
)
def test_the_search_for_keys_finds_them(code: str) -> None:
    assert find_uses(code)


def test_the_search_for_keys_lets_whole_details_pass() -> None:
    assert find_uses("NewEvent(event.type, detail=event.detail)\nto_json(event.detail)") == []
