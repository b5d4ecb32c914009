"""Every example runs as it stands, in a process of its own, against a scripted model over HTTP."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import pytest

from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.http_serving import ANN, open_site
from tests.reference import ROOT
from tests.serving import cell, turns

EXAMPLES = ROOT / "examples"
TEXT = "The whale was white. Call him Moby. A whale is no fish.\n" * 20
COUNT = cell("print(context.count('whale'))\nFINAL(context.count('whale'))")


def written(directory: Path, *names: str) -> list[str]:
    paths = [directory / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(TEXT)
    return [str(path) for path in paths]


async def run(directory: Path, name: str, *arguments: str, **environment: str) -> str:
    """Run an example as its reader would, and give what it prints."""
    tools = Path(sys.executable).parent  # where `rlm-mcp` is
    needed = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "HOME": str(directory)}
    with anyio.fail_after(60):
        done = await anyio.run_process(
            [sys.executable, str(EXAMPLES / name), *arguments],
            env={**needed, **environment},
            cwd=directory,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.parametrize("name", ["ten_lines.py", "events.py"])
async def test_an_example_of_the_library_answers(tmp_path: Path, name: str) -> None:
    [path] = written(tmp_path, "book.txt")
    async with open_scripted_model(turns(COUNT)) as model:
        printed = await run(
            tmp_path,
            name,
            path,
            "How many whales?",
            OPENAI_BASE_URL=model.base_url,
            OPENAI_API_KEY="none",
        )

    assert "40" in printed.splitlines()
    if name == "events.py":
        assert "completed" in printed


async def test_the_model_of_ones_own_answers_without_a_network(tmp_path: Path) -> None:
    [path] = written(tmp_path, "book.txt")

    assert await run(tmp_path, "own_model.py", path, "Whale") == "40"


async def test_the_client_over_stdio_stores_a_directory_and_asks(tmp_path: Path) -> None:
    written(tmp_path, "logs/one.txt", "logs/two.txt")
    count = cell("FINAL(sum(text.count('whale') for text in context))")
    async with open_scripted_model(turns(count)) as model:
        printed = await run(
            tmp_path,
            "mcp_stdio.py",
            "logs",
            "How many whales?",
            RLM_MCP_BASE_URL=model.base_url,
            RLM_MCP_ROOT_MODEL="root",
            RLM_MCP_DATA_DIR=str(tmp_path / "data"),
        )

    assert printed == "80"


async def test_the_client_over_http_sends_a_file_and_asks(tmp_path: Path) -> None:
    [path] = written(tmp_path, "book.txt")
    async with open_site(tmp_path, turns(COUNT)) as site:
        printed = await run(
            tmp_path, "mcp_http_upload.py", site.url, path, "Whales?", RLM_MCP_HTTP_TOKEN=ANN
        )

    assert printed == "40"


async def test_the_batch_writes_a_line_for_each_file(tmp_path: Path) -> None:
    paths = written(tmp_path, *(f"{number}.txt" for number in range(6)))
    async with open_scripted_model(turns(COUNT)) as model:
        printed = await run(
            tmp_path,
            "batch.py",
            "How many whales?",
            *paths,
            OPENAI_BASE_URL=model.base_url,
            OPENAI_API_KEY="none",
        )

    lines = [json.loads(line) for line in printed.splitlines()]
    assert sorted(line["file"] for line in lines) == [f"{number}.txt" for number in range(6)]
    assert {(line["status"], line["answer"]) for line in lines} == {("completed", "40")}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_is_run_and_listed(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 40
    assert f'"{path.name}"' in Path(__file__).read_text()
    assert f"({path.name})" in (EXAMPLES / "README.md").read_text()
