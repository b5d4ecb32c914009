"""What the documents for maintainers say of the code is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rlm_mcp.sandbox import wire
from tests.reference import DOCUMENTS, ROOT

PACKAGE = ROOT / "rlm_mcp"
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS}
ARCHITECTURE = TEXTS["docs/ARCHITECTURE.md"]
TREES = [ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))]
FOLDERS = "|".join(sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
NAMED_PATHS = sorted(
    {
        (name, path)
        for name, text in TEXTS.items()
        for path in re.findall(
            rf"(?<![\w/.-])((?:rlm_mcp|tests|bench|packaging|\.ci)/[\w./-]*[\w/]"
            rf"|(?:{FOLDERS})/[\w./-]*(?:\.py|/(?![\w.])))",
            text,
        )
    }
)
NAMED_MODULES = sorted(
    {
        (name, module)
        for name, text in TEXTS.items()
        for module in re.findall(r"(?<![\w/.])((?:rlm_mcp|tests)(?:\.[a-z_]+)+)\b", text)
    }
)


@pytest.mark.parametrize(("name", "path"), NAMED_PATHS)
def test_a_path_that_a_document_names_exists(name: str, path: str) -> None:
    assert (ROOT / path).exists() or (PACKAGE / path).exists(), name


@pytest.mark.parametrize(("name", "module"), NAMED_MODULES)
def test_a_module_that_a_document_names_exists(name: str, module: str) -> None:
    path = ROOT.joinpath(*module.split("."))

    assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), name


def methods() -> dict[str, set[str]]:
    """The names defined in each class of the package."""
    found: dict[str, set[str]] = {}
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(
                    part.name
                    for part in node.body
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
                )
    return found


def test_a_method_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`([A-Z]\w+)\.([a-z]\w+)`", ARCHITECTURE)
    known = methods()

    assert named
    assert [f"{name}.{method}" for name, method in named if method not in known[name]] == []


def test_a_name_that_a_document_for_maintainers_gives_occurs_in_the_code() -> None:
    code = "".join(
        path.read_text() for folder in (PACKAGE, ROOT / "bench") for path in folder.rglob("*.py")
    )
    words = set(re.findall(r"\w+", code))
    named = {
        (name, word)
        for name, text in TEXTS.items()
        if name.startswith(("docs/decisions/", "docs/ARCHITECTURE"))
        for word in re.findall(r"`(?!RLM_)([A-Za-z_]\w*_\w*|[A-Z]\w+|_\w+)(?:\(\))?`", text)
    }

    assert named
    assert [pair for pair in sorted(named) if pair[1] not in words] == []


def rows_below(heading: str) -> dict[str, list[str]]:
    """The rows of all tables of a section, by their first cell."""
    section = ARCHITECTURE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def test_the_table_of_wire_frames_has_every_frame_with_its_fields() -> None:
    shapes = {**wire.TO_CHILD, **wire.TO_HOST}
    told = {
        kind: re.findall(r"`(\w+)`", cells[0]) for kind, cells in rows_below("Wire frames").items()
    }

    assert told == {kind: list(shape.fields) for kind, shape in shapes.items()}


def test_every_folder_and_top_module_of_the_package_is_in_the_picture() -> None:
    folders = [f"rlm_mcp/{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")]
    modules = [f"rlm_mcp/{path.name}" for path in PACKAGE.glob("*.py") if path.name[0] != "_"]

    assert [name for name in (*folders, *modules) if f"`{name}`" not in ARCHITECTURE] == []


def test_every_decision_is_listed() -> None:
    decisions = {path.name for path in Path(ROOT / "docs" / "decisions").glob("*.md")}
    listed = re.findall(r"\]\(([\w-]+\.md)\)", TEXTS["docs/decisions/README.md"])

    assert sorted(listed) == sorted(decisions - {"README.md"})
