"""The command line, and the demo behind one of its commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from click.testing import CliRunner

import rlm_mcp
from rlm_mcp.cli.commands.main import main
from rlm_mcp.cli.demo_run import run_demo
from rlm_mcp.cli.demo_script import PASSPHRASE, demo_lines, is_right, scripted_reply
from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.serving import settings_in

ANSWER = "Answer: " + " ".join(PASSPHRASE)


async def test_the_demo_runs_to_its_answer_without_a_model_and_says_that_it_is_scripted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    settings = settings_in(tmp_path, root_model=None, sub_model=None)

    assert await run_demo(settings, servers=())

    shown = capsys.readouterr().out
    assert "SCRIPTED" in shown
    assert "RLM_MCP_ROOT_MODEL" in shown
    assert ANSWER in shown
    assert "5 sub-calls" in shown
    assert re.search(r"in a browser: uv run rlm-mcp ui run_\w+$", shown.strip())
    table = shown.partition("The REPL's variables")[2]
    assert "│ passphrase │ str  │ 36   │ 'amber lantern orchard granite meadow'" in table
    assert max(map(len, table.splitlines()[:-1])) == 80


async def test_the_demo_prints_what_the_documents_show_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = (Path(__file__).parent.parent / "docs" / "start.md").read_text()
    [transcript] = re.findall(r"^```text\n(Model: .*?)```$", document, re.DOTALL | re.MULTILINE)

    await run_demo(settings_in(tmp_path, root_model=None, sub_model=None), servers=())

    shown = without_what_varies(capsys.readouterr().out)
    wanted = without_what_varies(transcript.partition(" " * 20)[0])
    assert wanted in shown


def without_what_varies(text: str) -> str:
    """Text without ids, times and tokens, and without the places of its line breaks.

    On a busy machine some of the sub-calls are reported before the others.
    """
    text = re.sub(r"^[1-4] of 5 sub-calls finished.*\n", "", text, flags=re.MULTILINE)
    varying = r"(?:ctx|run)_[0-9a-f]+|[\d.]+ m?s\b|[\d,]+ tokens in, \d+ out"
    return " ".join(re.sub(varying, "…", text).split())


async def test_the_demo_uses_the_model_that_is_configured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_scripted_model(scripted_reply) as model:
        settings = settings_in(tmp_path, base_url=model.base_url, root_model="my-model")

        assert await run_demo(settings, servers=())

    assert "Model: my-model, as configured." in capsys.readouterr().out
    assert {request.model for request in model.requests} == {"my-model", "sub"}


async def test_the_demo_says_that_an_answer_is_not_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_scripted_model("FINAL(amber and lantern)") as model:
        settings = settings_in(tmp_path, base_url=model.base_url, root_model="my-model")

        assert await run_demo(settings, servers=())

    assert f"This is not right: the words are {' '.join(PASSPHRASE)}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("1. Amber\n2. lantern\n3. orchard\n4. granite\n5. meadow", True),
        ("amber, orchard, lantern, granite and meadow", False),
        ("no passphrase", False),
    ],
)
def test_the_demo_knows_the_right_answer_in_any_form(answer: str, right: bool) -> None:
    assert is_right(answer) is right


@contextmanager
def model_list(*names: str) -> Generator[int]:
    """Serve a list of models, and nothing else, as a local model server does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": name} for name in names]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


async def test_the_demo_takes_a_model_that_runs_on_this_machine_and_tells_when_it_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_in(tmp_path, root_model=None)
    with model_list() as empty, model_list("local-model") as port:
        answered = await run_demo(settings, servers=(("Empty", empty), ("Local", port)))

    shown = capsys.readouterr().out
    assert "Model: local-model, served by Local." in shown
    assert not answered  # it lists models, but answers no question
    assert "Answer: None" in shown


def test_the_demo_text_holds_its_facts_once_each_across_it() -> None:
    lines = list(demo_lines())
    places = [number for number, line in enumerate(lines) if "Kestrel" in line]

    assert len(places) == len(PASSPHRASE)
    assert all(sum(f"{word!r}" in line for line in lines) == 1 for word in PASSPHRASE)
    assert max(places) - min(places) > len(lines) // 2
    assert list(demo_lines()) == lines


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output

    for command in ("serve", "demo"):
        assert command in shown
    assert "..." not in shown.partition("Commands:")[2]  # each has room for a whole sentence


def test_the_version_is_told() -> None:
    assert rlm_mcp.__version__ in CliRunner().invoke(main, ["--version"]).output


def test_a_file_of_settings_that_is_missing_is_told_without_a_traceback() -> None:
    done = CliRunner().invoke(main, ["--config", "/no/such.toml", "demo"])

    assert done.exit_code == 2
    assert "/no/such.toml" in done.output
    assert "Traceback" not in done.output


async def test_a_data_directory_that_cannot_be_written_is_told_without_a_traceback() -> None:
    with anyio.fail_after(60):
        done = await anyio.to_thread.run_sync(
            lambda: CliRunner().invoke(
                main, ["demo"], env={"RLM_MCP_DATA_DIR": "/proc/nowhere", "RLM_MCP_ROOT_MODEL": "m"}
            )
        )

    assert done.exit_code == 2
    assert "/proc/nowhere" in done.output


def test_what_a_server_has_loaded_is_no_part_of_later_collections_of_garbage() -> None:
    code = """if True:
        import gc
        from rlm_mcp.cli.commands import serve
        from rlm_mcp.settings import Settings

        serve._open_service(Settings())
        print(gc.get_freeze_count() > 10_000)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
