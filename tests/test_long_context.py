"""The suite of long texts: nothing that an oracle answers is lost, and its report is in step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.reference import ROOT

SUITE = ROOT / "bench" / "long_context"
DOCUMENT = ROOT / "docs" / "long-context.md"
FAMILIES = 9


async def suite(script: str, *arguments: str | Path) -> None:
    command = [sys.executable, SUITE / script, *arguments]
    done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()


async def test_nothing_that_an_oracle_answers_is_lost(tmp_path: Path) -> None:
    played = tmp_path / "results.jsonl"

    await suite(
        "play.py",
        *("--engines", "rlm_mcp", "--sizes", "13", "16", "--seeds", "1"),
        *("--out", played),
    )

    rows = [json.loads(line) for line in played.read_text().splitlines()]
    assert [row for row in rows if row["score"] != 1] == []
    assert len(rows) == 2 * FAMILIES


@pytest.mark.parametrize("model", ["oracle", "qwen2.5-coder-1.5b"])
async def test_the_report_of_a_model_is_made_from_its_figures(tmp_path: Path, model: str) -> None:
    document = tmp_path / DOCUMENT.name
    shutil.copy(DOCUMENT, document)
    (tmp_path / "images").mkdir()
    figures = DOCUMENT.with_name(f"long-context-{model}.json")

    await suite("report.py", figures, "--document", document)

    plot = Path("images", f"long-context-{model}.svg")
    assert document.read_text() == DOCUMENT.read_text()
    assert (tmp_path / plot).read_text() == (DOCUMENT.parent / plot).read_text()


def test_the_documented_oracle_lost_nothing_with_this_engine() -> None:
    figures = json.loads(DOCUMENT.with_name("long-context-oracle.json").read_text())
    ours = figures["engines"]["rlm_mcp"]

    assert ours["right"] == ours["tries"]
    assert len(ours["by_family"]) == FAMILIES
    assert sorted(map(int, ours["by_size"])) == list(range(13, 24))
