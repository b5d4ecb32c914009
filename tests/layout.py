"""Measures the layout of the package: `python -m tests.layout` prints what the tests hold.

The fullest folder, the longest chain of imports, and the files whose functions run between a call
of `rlm_query` and the first request that the model gets.
"""

from __future__ import annotations

import ast
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import FrameType

import anyio

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rlm_mcp"
COUNTED_CALLS = 3
# Tasks of the server run these now and then, whatever is called.
BACKGROUND = ("rlm_mcp/service/runs/other_servers.py", "rlm_mcp/store/runs/leases.py")


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the package by its dotted name; a package goes by its folder's name."""
    found: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path, *, at_run_time: bool = False) -> tuple[str, ...]:
    """The name of every module that a file imports, wherever in it.

    Args:
        at_run_time: leave out those that only a type checker follows.
    """
    tree = ast.parse(path.read_text())
    nodes = _without_types(tree) if at_run_time else ast.walk(tree)
    return tuple(name for node in nodes for name in _imported(node))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from {name if name in modules() else node.module for name in names}


def _without_types(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _without_types(child)


def fullest_folder() -> tuple[int, str]:
    """The number of modules in the folder that holds most of them, `__init__` apart."""
    counts: dict[str, int] = {}
    for path in modules().values():
        if path.name != "__init__.py":
            folder = str(path.parent.relative_to(ROOT))
            counts[folder] = counts.get(folder, 0) + 1
    return max((count, folder) for folder, count in counts.items())


def long_functions(most: int) -> list[str]:
    """Functions of more lines than that, docstrings among them."""
    return [
        f"{name}.{node.name}: {lines}"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > most
    ]


def longest_chain() -> list[str]:
    """The longest chain of modules in which each loads the next, at once or at first use."""
    known = modules()
    below = {
        name: sorted(set(imports(path, at_run_time=True)) & known.keys())
        for name, path in known.items()
    }

    @cache
    def chain(name: str) -> tuple[str, ...]:
        return (name, *max((chain(one) for one in below[name] if one != name), key=len, default=()))

    return list(max((chain(name) for name in known), key=len))


async def files_of_a_call() -> list[str]:
    """The files of the package that run from a call of `rlm_query` to the first model request.

    Those of each of several calls: what runs beside one by chance is none of them.
    """
    from tests.serving import open_served  # noqa: PLC0415  # it imports the whole package

    calls: list[set[str]] = []
    is_counting = False

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if is_counting and event == "call":
            calls[-1].add(frame.f_code.co_filename)

    def answer(_request: object) -> str:
        nonlocal is_counting
        is_counting = False
        return "FINAL(done)"

    threading.setprofile(note)  # worker threads start with it
    sys.setprofile(note)
    with tempfile.TemporaryDirectory() as directory:
        async with open_served(Path(directory), answer) as served:
            added = await served.call("rlm_context_add", text="one two three " * 20_000)
            asked = {"contexts": [added["handle"]], "wait_seconds": 20}
            await served.call("rlm_query", question="Is the text loaded?", **asked)
            for number in range(COUNTED_CALLS):
                calls.append(set())
                is_counting = True
                await served.call("rlm_query", question=f"Which files run? {number}", **asked)
    sys.setprofile(None)
    threading.setprofile(None)
    seen = calls[0].intersection(*calls[1:])
    ours = {Path(name) for name in seen if Path(name).is_relative_to(PACKAGE)}
    names = (str(path.relative_to(ROOT)) for path in ours)
    return sorted(name for name in names if "scripted" not in name and name not in BACKGROUND)


def main() -> None:
    """Print the figures."""
    chain = longest_chain()
    files = anyio.run(files_of_a_call)
    print(f"modules: {len(modules())}; fullest folder: {fullest_folder()}")
    print(f"longest chain of imports: {len(chain)}: {' > '.join(chain)}")
    print(f"files from rlm_query to the first model request: {len(files)}")
    print("\n".join(f"  {name}" for name in files))


if __name__ == "__main__":
    main()
