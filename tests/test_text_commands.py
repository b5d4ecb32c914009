"""Stored texts from the command line: what adding, listing, searching and deleting say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from rlm_mcp.cli.failures import report_interrupted
from tests.commands import command, environment


def cursor_in(stderr: str) -> str:
    """The cursor with which the next page is asked for."""
    (cursor,) = re.findall(r"More with: --cursor (\S+)", stderr)
    return cursor


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


async def added(env: dict[str, str], directory: Path, **texts: str) -> list[str]:
    """Store texts; returns their handles."""
    handles: list[str] = []
    for name, text in texts.items():
        path = directory / f"{name}.txt"
        path.write_text(text)
        done = await command(env, "contexts", "add", str(path))
        handles.append(done.stdout.strip())
    return handles


async def test_commands_that_work_on_no_run_need_nothing_of_a_cluster(tmp_path: Path) -> None:
    """No Ray is at that address, and where it is not installed nothing could reach it."""
    env = environment(tmp_path, RLM_MCP_RAY_ADDRESS="127.0.0.9:6379")
    file = tmp_path / "words.txt"
    file.write_text("some words of no note")
    handle = (await command(env, "contexts", "add", str(file))).stdout.strip()
    done = [
        await command(env, *line)
        for line in (
            ("contexts", "list"),
            ("contexts", "search", "note", handle),
            ("contexts", "show", handle),
            ("runs", "list"),
            ("query", "What?", "--context", handle, "--estimate"),
            ("contexts", "delete", handle),
        )
    ]

    assert [(one.exit_code, one.stderr) for one in done if one.exit_code] == []


async def test_adding_reports_charset_what_could_not_be_decoded_and_what_was_skipped(
    env: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old.txt").write_bytes("Grüße aus Köln, schöne Straße\n".encode("latin-1") * 50)
    for number in range(30):
        (folder / f"{number:02}.bin").write_bytes(bytes(range(256)))
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"\xff\xfeh\x00i\x00\x00\xd8!\x00")  # UTF-16 with half of a pair

    directory = await command(env, "contexts", "add", str(folder))
    file = await command(env, "contexts", "add", str(broken))
    again = await command(env, "contexts", "add", str(broken))

    assert re.fullmatch(r"ctx_[0-9a-f]{16}\n", directory.stdout)
    assert "decoded from cp1252" in directory.stderr
    skipped = re.findall(r"^skipped: \S+bin \(binary\)$", directory.stderr, re.MULTILINE)
    assert f"skipped: {30 - len(skipped)} more" in directory.stderr
    assert "1 invalid byte sequences became U+FFFD" in file.stderr
    assert "already stored" in again.stderr
    assert again.stdout == file.stdout


async def test_a_list_says_how_it_continues_and_where_it_is_empty(
    env: dict[str, str], tmp_path: Path
) -> None:
    empty = await command(env, "contexts", "list")
    no_runs = await command(env, "runs", "list")
    one, two = await added(env, tmp_path, one="the first text", two="the second text")
    newest = await command(env, "contexts", "list", "--limit", "1")
    oldest = await command(
        env, "contexts", "list", "--limit", "1", "--cursor", cursor_in(newest.stderr)
    )

    assert "No texts are stored. Add one with: rlm-mcp contexts add PATH" in empty.stderr
    assert "No runs yet. Ask with: rlm-mcp query" in no_runs.stderr
    assert two in newest.stdout
    assert one not in newest.stdout
    assert one in oldest.stdout
    assert oldest.stderr == ""


async def test_a_search_says_how_it_continues_and_that_nothing_was_found(
    env: dict[str, str], tmp_path: Path
) -> None:
    (handle,) = await added(env, tmp_path, ships="ship one\nship two\nship three\n")

    first = await command(env, "contexts", "search", "ship", handle, "--limit", "2")
    cursor = cursor_in(first.stderr)
    rest = await command(env, "contexts", "search", "ship", handle, "--cursor", cursor)
    none = await command(env, "contexts", "search", "whale", handle)

    assert first.stdout.splitlines() == ["ships.txt:1: ship one", "ships.txt:2: ship two"]
    assert rest.stdout.splitlines() == ["ships.txt:3: ship three"]
    assert (none.stdout, none.stderr) == ("", "Nothing was found.\n")


async def test_a_piece_of_a_text_goes_to_stdout_and_its_place_to_stderr(
    env: dict[str, str], tmp_path: Path
) -> None:
    (handle,) = await added(env, tmp_path, text="one\ntwo\nthree")

    piece = await command(env, "contexts", "show", handle, "--start", "4", "--limit", "3")
    lines = await command(env, "contexts", "show", handle, "--lines", "--start", "2")
    as_json = await command(env, "contexts", "show", handle, "--limit", "3", "--json")

    assert (piece.stdout, piece.stderr) == ("two\n", "[characters 4 to 7 of 13; more: --start 7]\n")
    assert (lines.stdout, lines.stderr) == ("three\n", "[lines 2 to 3 of 3; the end]\n")
    assert json.loads(as_json.stdout)["text"] == "one"


async def test_deleting_says_what_it_freed_and_refuses_what_is_not_there(
    env: dict[str, str], tmp_path: Path
) -> None:
    one, two = await added(env, tmp_path, one="x" * 4000, two="y" * 4000)

    done = await command(env, "contexts", "delete", one)
    as_json = await command(env, "contexts", "delete", two, "--json")
    again = await command(env, "contexts", "delete", one)

    assert re.fullmatch(rf"Deleted {one}, [\d.]+ k?B freed\.\n", done.stderr)
    assert json.loads(as_json.stdout)["deleted"] is True
    assert again.exit_code == 2
    assert one in again.stderr
    assert "rlm-mcp contexts list" in again.stderr


def test_an_interrupted_command_says_how_its_run_continues(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report_interrupted("")
    report_interrupted("run_1", goes_on=True)
    report_interrupted("run_1")

    assert capsys.readouterr().err.splitlines() == [
        "Interrupted before a run started.",
        "The run continues. Follow it with: rlm-mcp runs show run_1 --follow",
        "Interrupted. Resume it with: rlm-mcp runs resume run_1",
    ]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere paths are written in another way")
async def test_doctor_names_what_is_wrong_and_how_to_fix_it(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file where a directory should be")
    wrong = {"RLM_MCP_DATA_DIR": str(tmp_path / "taken"), "RLM_MCP_ROOT_MODLE": "a"}

    done = await command(env | wrong, "doctor")
    unread = await command(env | {"RLM_MCP_MAX_USD": "much"}, "doctor", "--json")

    assert done.exit_code != 0
    assert "RLM_MCP_ROOT_MODLE is not a setting; did you mean RLM_MCP_ROOT_MODEL?" in done.stdout
    assert re.search(r"^Fix first: .*", done.stdout, re.MULTILINE)
    checks = json.loads(unread.stdout)["checks"]
    assert [(one["name"], one["state"]) for one in checks] == [("settings", "failed")]
    assert "RLM_MCP_MAX_USD='much'" in checks[0]["found"]
