"""Money, times, counts and sizes are written in one way; `web/test` holds the page to the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp import text

EXAMPLES: dict[str, list[tuple[float, str]]] = json.loads(
    (Path(__file__).parent / "amounts.json").read_text("utf-8")
)
ROWS = [(kind, number, said) for kind, rows in EXAMPLES.items() for number, said in rows]


@pytest.mark.parametrize(("kind", "number", "said"), ROWS)
def test_an_amount_is_written_as_people_read_it(kind: str, number: Any, said: str) -> None:
    arguments = (number, "turn") if kind == "counted" else (number,)

    assert getattr(text, kind)(*arguments) == said
