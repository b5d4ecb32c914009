"""What one sandbox alone does: each test that is left out for another stands in one table."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from tests.reference import ROOT

TABLE = re.compile(r"^\| (?P<reason>[^|]+) \| (?P<count>\d+) \|$", re.MULTILINE)


def reasons() -> Counter[str]:
    """The reasons of `native_alone`, with the number of tests or cases that each leaves out."""
    found: Counter[str] = Counter()
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "native_alone":
                [reason] = node.args
                assert isinstance(reason, ast.Constant)
                found[str(reason.value)] += 1
    return found


def test_tests_of_the_native_sandbox_alone_are_listed_with_their_reasons() -> None:
    text = (ROOT / "docs" / "sandbox.md").read_text("utf-8")
    _, _, section = text.partition("## Where the sandboxes differ")
    listed = {row["reason"]: int(row["count"]) for row in TABLE.finditer(section)}

    assert listed == dict(reasons())
