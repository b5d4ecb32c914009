"""The texts of errors as the source has them; what is filled in at run time is `…`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "rlm_mcp"
# What callers of tools read; errors of the command line, of HTTP and of prompts are worded apart.
_LAYERS = ("engine", "sandbox", "service", "store")
_GROUND = ("cursors.py", "errors.py", "settings.py", "values.py")


def error_texts() -> list[str]:
    """Return message and fix of each error that is raised or stored, without doubles."""
    modules = [path for layer in _LAYERS for path in sorted((PACKAGE / layer).rglob("*.py"))]
    modules += [PACKAGE / name for name in _GROUND]
    texts = (text for module in modules for text in _texts_in(ast.parse(module.read_text("utf-8"))))
    return list(dict.fromkeys(texts))


def _texts_in(tree: ast.Module) -> Iterator[str]:
    constants = dict(_constants(tree))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func).rpartition(".")[2]
        fixes = [word.value for word in node.keywords if word.arg == "fix"]
        if function == "not_found":
            yield f"{_text(node.args[-1], constants)} lists them all."
        elif fixes or function.endswith("Error"):
            yield from (_text(part, constants) for part in (*node.args, *fixes))


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, _text(node.value, {})


def _text(node: ast.expr, constants: Mapping[str, str]) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return constants.get(name, "…")
        case ast.JoinedStr(values=values):
            return "".join(_text(value, constants) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, constants) + _text(right, constants)
        case ast.IfExp(body=body, orelse=orelse):
            return f"{_text(body, constants)} {_text(orelse, constants)}"
        case _:
            return "…"
