"""What a terminal gets: what texts, answers and names hold is shown, and never obeyed."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio.to_thread
import pytest

import rlm_mcp
from rlm_mcp.cli.output import visible
from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.commands import command, environment, started
from tests.serving import cell, turns

CLI = Path(rlm_mcp.__file__).parent / "cli"
# Clipboard, title, colours, one byte of C1, back to the line's start, a direction that hides.
HOSTILE = "\x1b]52;c;ZWNobyBoaQ==\x07\x1b]0;title\x07\x1b[2J\x9b31m\x08\x7f\rover\u202egnp.exe"
SENT = ("\x1b]52", "\x1b]0;", "\x1b[2J", "\x9b", "\x08", "\x7f", "\u202e", "\rover", "\x07")


def on_a_terminal(
    given: Mapping[str, str], *arguments: str, note: Callable[[bytes], None] = lambda _: None
) -> str:
    """What a command writes where both its outputs are a terminal.

    `note` is called with all that it has written, whenever that is more.
    """
    ours, theirs = pty.openpty()
    whole = {**os.environ, **given, "TERM": "xterm-256color", "COLUMNS": "200"}
    process = subprocess.Popen(  # our own command
        started(*arguments), env=whole, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
        note(written)
    os.close(ours)
    process.wait()
    return written.decode()


def sent(written: str) -> list[str]:
    """The controls of ours that reached the terminal."""
    return [one for one in SENT if one in written]


async def test_no_command_sends_what_a_text_an_answer_or_a_name_holds(tmp_path: Path) -> None:
    (tmp_path / "a\x1b]0;title\x07.log").write_text(f"line {HOSTILE}\n" * 20)
    script = turns(
        cell(f"x = {HOSTILE!r}\nprint(context[:200])\nprint(llm_query(x))"),
        f"FINAL(see {HOSTILE} here)",
    )
    async with open_scripted_model(script) as model:
        given = environment(tmp_path, model.base_url)
        source = str(tmp_path / "a\x1b]0;title\x07.log")

        async def shown(*arguments: str) -> str:
            return await anyio.to_thread.run_sync(on_a_terminal, given, *arguments)

        asked = await shown("query", f"what {HOSTILE}?", "--file", source, "--verbose")
        added = await command(given, "contexts", "add", source)
        handle = added.stdout.strip()
        run_id = json.loads((await command(given, "runs", "list", "--json")).stdout)["runs"][0][
            "run_id"
        ]
        outputs = {
            "query": asked,
            "add": await shown("contexts", "add", source, str(tmp_path / "no\x1b]0;title\x07")),
            "list": await shown("contexts", "list"),
            "show": await shown("contexts", "show", handle),
            "search": await shown("contexts", "search", "line", handle, "--limit", "3"),
            "runs": await shown("runs", "list"),
            "run": await shown("runs", "show", run_id),
            "trace": await shown("runs", "show", run_id, "--trace"),
            "variables": await shown("runs", "show", run_id, "--variables"),
            "json": await shown("runs", "show", run_id, "--json"),
        }
        piped = await command(given, "runs", "show", run_id, "--json")

    assert {name: sent(text) for name, text in outputs.items() if sent(text)} == {}
    assert "\\u001b]52;c;" in outputs["query"]
    assert "\\u001b]52;c;" in outputs["show"]
    found = outputs["json"][outputs["json"].index("{") : outputs["json"].rindex("}") + 1]
    assert json.loads(found) == json.loads(piped.stdout)


async def test_no_rarer_command_sends_what_names_and_files_hold(tmp_path: Path) -> None:
    strange = f"a{HOSTILE}".replace("/", "")
    source = tmp_path / f"{strange}.txt"
    source.write_text(f"line {HOSTILE}\n" * 20)
    questions = tmp_path / f"{strange}.jsonl"
    lines = [{"id": strange, "question": f"what {HOSTILE}?", "contexts": [source.name]}]
    bad = [{"id": strange}, {"id": "x", "question": "?", "contexts": [f"no {HOSTILE}"]}]
    questions.write_text("".join(f"{json.dumps(one)}\n" for one in (*lines, *bad)) + f"{HOSTILE}\n")
    script = turns(cell(f"FINAL({f'see {HOSTILE}'!r} + chr(0xd83d))"))
    async with open_scripted_model(script) as model:
        given = environment(tmp_path, model.base_url)
        named = given | {"RLM_MCP_ROOT_MODEL": f"root{HOSTILE}", "RLM_MCP_NO" + "\x1b[31m": "1"}
        named["RLM_MCP_DATA_DIR"] = str(tmp_path / strange)

        async def shown(*arguments: str, variables: Mapping[str, str] = given) -> str:
            return await anyio.to_thread.run_sync(on_a_terminal, variables, *arguments)

        out = tmp_path / f"out{strange}"
        asked = ("batch", str(questions), "--texts", str(source), "--out", str(out))
        outputs = {"batch": await shown(*asked, "--report")}
        handle = json.loads((await command(given, "contexts", "list", "--json")).stdout)
        handle = handle["contexts"][0]["handle"]
        runs = json.loads((await command(given, "runs", "list", "--json")).stdout)["runs"]
        run_id = runs[0]["run_id"]
        outputs |= {
            "estimate": await shown(
                *("query", f"{HOSTILE}?", "--estimate", "--context", handle), variables=named
            ),
            "words": await shown("contexts", "search", "--words", "line", handle),
            "backup": await shown("backup", str(tmp_path / f"copy{strange}")),
            "doctor": await shown("doctor", variables=named),
            "export": await shown("runs", "export", run_id, str(tmp_path / f"run{strange}")),
            "exported": await shown("runs", "export", run_id, "-", "--json"),
            "cancel": await shown("runs", "cancel", f"run{HOSTILE}"),
            "delete": await shown("contexts", "delete", f"ctx{HOSTILE}"),
            "config": await shown("--config", str(tmp_path / strange), "runs", "list"),
            "schema": await shown("query", "?", "--context", handle, "--schema", str(source)),
            "nowhere": await shown(*asked[:-1], str(tmp_path / f"no{strange}" / "out")),
        }

    assert {name: sent(text) for name, text in outputs.items() if sent(text)} == {}
    assert {name for name, text in outputs.items() if "Traceback" in text} == set()
    results = [json.loads(line) for line in out.read_text().split("\n") if line]
    [answer] = [one["answer"] for one in results if one["id"] == strange]
    assert answer == f"see {HOSTILE}?"


@pytest.mark.parametrize(
    "arguments",
    [
        ("no\x1b[31m",),
        ("contexts", "no\x1b[31m"),
        ("--no\x1b[31m",),
        ("contexts", "show", "one", "two\x1b[31m"),
        ("contexts", "list", "--limit", "\x1b[31m"),
        ("install", "no\x1b[31m"),
        ("completion", "no\x1b[31m"),
    ],
)
def test_arguments_that_are_refused_are_shown_and_not_sent(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    shown = on_a_terminal(environment(tmp_path), *arguments)

    assert "Usage: " in shown
    assert "\x1b[31m" not in shown
    assert "[31m" in shown


async def test_what_goes_into_a_pipe_is_exact(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(f"line {HOSTILE}\r\n".encode())
    given = environment(tmp_path)
    handle = (await command(given, "contexts", "add", str(tmp_path / "a.log"))).stdout.strip()

    shown = subprocess.run(  # noqa: ASYNC221  # our own command, and nothing else waits
        started("contexts", "show", handle),
        env={**os.environ, **given},
        capture_output=True,
        check=True,
    )

    assert shown.stdout.decode() == f"line {HOSTILE}\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünïcode 日本\t\n", "plain ünïcode 日本\t\n"),
        ("dos\r\nlines\r\n", "dos\r\nlines\r\n"),
        ("\x1b[31mred", "\\u001b[31mred"),
        ("a\rb", "a\\u000db"),
        ("\x9b\x7f\x00\u202e\u061c", "\\u009b\\u007f\\u0000\\u202e\\u061c"),
    ],
)
def test_controls_are_written_out(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_json_says_the_same_with_its_controls_written_out() -> None:
    whole = "".join(map(chr, range(0x250))) + HOSTILE

    assert json.loads(visible(json.dumps(whole, ensure_ascii=False))) == whole


@pytest.mark.parametrize(
    "module", sorted(CLI.rglob("*.py")), ids=lambda path: str(path.relative_to(CLI))
)
def test_commands_print_in_the_one_safe_way(module: Path) -> None:
    if module.name in ("output.py", "terminal.py"):
        return
    calls = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]
    named = {ast.unparse(call.func) for call in calls}

    assert named & {"print", "click.echo", "click.secho", "Console", "sys.stdout.write"} == set()
