"""Imports of helpers as if they stood in a package: `from rlm import llm_query`.

Runs in the REPL's process.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


class HelperModule(ModuleType):
    """A module that holds all helpers; one that is named after a helper is called like it."""

    def __init__(
        self, name: str, variables: Mapping[str, Any], helper: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(name)
        self._helper = helper
        self._variables = variables

    def __call__(self, *values: Any, **named: Any) -> Any:
        """Call the helper after which the module is named."""
        if self._helper is None:
            raise TypeError(f"the module {self.__name__!r} is not callable")
        return self._helper(*values, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self._variables:
            raise AttributeError(name)
        return self._variables[name]


class WithoutHelperImports(ast.NodeTransformer):
    """Takes helpers from the REPL where a cell imports them from a package that it makes up."""

    def __init__(self, helpers: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
        self._helpers = helpers
        self._variables = variables

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:  # noqa: D102  # the name `ast` calls
        names = [each.name for each in node.names]
        is_known = _is_standard(node.module or "") and not node.level
        if is_known or not set(names) <= self._helpers.keys():
            return node
        renamed = [each for each in node.names if each.asname not in {None, each.name}]
        return [ast.copy_location(statement, node) for statement in map(_assigned, renamed)] or (
            ast.copy_location(ast.Pass(), node)
        )

    def visit_Import(self, node: ast.Import) -> ast.Import:  # noqa: D102  # likewise
        for each in node.names:
            top = each.name.partition(".")[0]
            if top in _PACKAGES and not _is_there(top):
                sys.modules[top] = HelperModule(top, self._variables)
        return node


# Packages of this kind, from which models import what the REPL has anyway.
_PACKAGES = frozenset({"rlm", "rlms", "rlm_mcp", "replm", "repl", "llm", "rlm_helpers", "helpers"})


def _assigned(name: ast.alias) -> ast.stmt:
    target = ast.Name(name.asname or name.name, ast.Store())
    return ast.Assign([target], ast.Name(name.name, ast.Load()))


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names - {"__main__"}


def _is_there(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
