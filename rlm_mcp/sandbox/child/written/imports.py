"""Imports of what is no package here: helpers (`from rlm import llm_query`), and `tqdm`.

Runs in the REPL's process.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
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


class Progress:
    """Stands in for `tqdm`: gives the items, and shows nothing of how far it is."""

    def __init__(self, iterable: Iterable[Any] = (), *_: object, **named: Any) -> None:
        self.iterable = iterable
        self.n = 0
        self.total = named.get("total")

    def __iter__(self) -> Iterator[Any]:
        for item in self.iterable:
            self.n += 1
            yield item

    def __len__(self) -> int:
        return len(self.iterable) if hasattr(self.iterable, "__len__") else self.total or 0  # pyright: ignore[reportArgumentType]  # as its `hasattr` says

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Count on."""
        self.n += n

    @staticmethod
    def write(text: object, *_: object, **__: object) -> None:
        """Print a line."""
        sys.stdout.write(f"{text}\n")

    @staticmethod
    async def gather(*values: Any, **_: Any) -> list[Any]:
        """Await values, as `tqdm.asyncio` does."""
        import asyncio  # noqa: PLC0415  # few cells use it

        return await asyncio.gather(*values)

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None  # set_description and its kin


def offer_tqdm() -> None:
    """Let `from tqdm import tqdm` succeed where the package is not there."""
    if _is_there("tqdm"):
        return
    parts = ("", ".auto", ".notebook", ".std", ".asyncio", ".autonotebook")
    made = {part: ModuleType(f"tqdm{part}") for part in parts}
    for part, module in made.items():
        module.__dict__.update(tqdm=Progress, trange=_counted, tqdm_notebook=Progress)
        module.__dict__.update(tqdm_asyncio=Progress, gather=Progress.gather, __path__=[])
        sys.modules[module.__name__] = module
        if part:
            setattr(made[""], part[1:], module)


def _counted(*bounds: int, **_: object) -> Progress:
    return Progress(range(*bounds))


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
