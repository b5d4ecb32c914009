"""Questions, texts and runs from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from click.shell_completion import BashComplete

from rlm_mcp.cli.commands.main import main
from rlm_mcp.service.runs import runs
from rlm_mcp.testing.scripted_model import open_scripted_model
from rlm_mcp.testing.scripted_replies import Reply, unauthorized
from tests.commands import command, environment, process, started
from tests.serving import Served, cell, open_served, turns

TEXT = "The keeper of the lighthouse is called Ottilie.\n" * 50
LOOK = cell("place = context.find('Ottilie')\nprint(llm_query('Who?'))")
SCRIPT = turns(LOOK, "FINAL(Ottilie)", sub=lambda _: "Ottilie, it seems")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "log.txt"
    path.write_text(TEXT)
    return path


async def test_a_question_over_a_file_prints_the_answer_and_nothing_else_to_stdout(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "REPORT_SECONDS", 0)  # the model is quick
    async with open_scripted_model(SCRIPT) as model:
        env = environment(tmp_path, model.base_url)
        done = await command(env, "query", "Who keeps the light?", "--file", str(file))
        quiet = await command(env, "query", "Who?", "-f", str(file), "--quiet")
        verbose = await command(env, "query", "Who is it?", "-f", str(file), "--verbose")

    assert (done.exit_code, done.stdout) == (0, "Ottilie\n")
    assert "turn 1 · 0/500 calls" in done.stderr
    assert "completed: 2 turns, 1 sub-call" in done.stderr
    assert (quiet.stdout, quiet.stderr) == ("Ottilie\n", "")
    assert "place = context.find('Ottilie')" in verbose.stderr
    assert "Ottilie, it seems" in verbose.stderr


async def test_each_option_of_a_question_reaches_its_run(tmp_path: Path, file: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "required": ["name"]}')
    options = ("--root-model", "other", "--sub-model", "small", "--option", "temperature=0.1")
    limits = ("--max-iterations", "7", "--max-sub-calls", "9", "--max-seconds", "300")

    def answer(request: Any) -> str:
        return 'FINAL({"name": "Ottilie"})' if request.model == "other" else "never"

    async with open_scripted_model(answer) as model:
        env = environment(tmp_path, model.base_url)
        done = await command(
            env, "query", "Who?", "-f", str(file), "--schema", str(schema), *options, *limits,
            "--json", "-q",
        )  # fmt: skip
        run = json.loads(done.stdout)
        trace = await command(env, "runs", "show", run["run_id"], "--trace", "--json")

    assert run["data"] == {"name": "Ottilie"}
    begun = json.loads(trace.stdout)["events"][0]["detail"]["options"]
    assert (begun["max_iterations"], begun["max_sub_calls"]) == (7, 9)
    assert (begun["max_seconds"], begun["temperature"]) == (300, 0.1)
    assert (begun["root_model"], begun["sub_model"]) == ("other", "small")


async def test_json_is_what_the_tools_give_while_a_server_works_on_the_same_directory(
    tmp_path: Path, file: Path
) -> None:
    async with open_served(tmp_path, SCRIPT) as served:
        env = environment(tmp_path, served.model.base_url)
        added = await printed(env, "contexts", "add", str(file))
        again = await served.call("rlm_context_add", path=str(file))
        handle = str(added["handle"])
        run = await served.call("rlm_query", question="Who?", contexts=[handle])
        asked = await printed(env, "query", "Who?", "-c", handle, "-q")
        run_id = str(run["run_id"])
        pairs = [
            (await printed(env, *arguments), await served.call(tool, **given))
            for arguments, tool, given in same_things(handle, run_id)
        ]
        waited = await served.call("rlm_run_wait", run_id=asked["run_id"])
        deleted = await printed(env, "contexts", "delete", handle)

    assert again == added | {"deduplicated": True}
    assert [shown for shown, _ in pairs] == [expected for _, expected in pairs]
    assert asked == {name: waited[name] for name in asked}
    assert deleted == {"deleted": True, "freed_bytes": len(TEXT)}


def same_things(handle: str, run_id: str) -> list[tuple[tuple[str, ...], str, dict[str, Any]]]:
    """Commands, and the tool that gives the same."""
    return [
        (("contexts", "list"), "rlm_context_list", {}),
        (
            ("contexts", "show", handle, "--start", "4", "--limit", "9"),
            "rlm_context_read",
            {"handle": handle, "start": 4, "limit": 9},
        ),
        (("runs", "list", "--limit", "1"), "rlm_run_list", {"limit": 1}),
        (("runs", "show", run_id), "rlm_run_cancel", {"run_id": run_id}),
        (("runs", "cancel", run_id), "rlm_run_cancel", {"run_id": run_id}),
        (("runs", "show", run_id, "--trace"), "rlm_run_trace", {"run_id": run_id, "limit": 100}),
        (("runs", "show", run_id, "--variables"), "rlm_run_variables", {"run_id": run_id}),
        (
            ("runs", "show", run_id, "--variable", "place"),
            "rlm_run_variables",
            {"run_id": run_id, "name": "place"},
        ),
    ]


async def printed(env: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = await command(env, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def test_people_are_shown_lists_pieces_logs_and_variables_as_text(
    tmp_path: Path, file: Path
) -> None:
    long = cell("long = 'x' * 70_000\nFINAL('y' * 20_000)")
    async with open_scripted_model(turns(LOOK, long)) as model:
        env = environment(tmp_path, model.base_url)
        empty = [await command(env, noun, "list") for noun in ("contexts", "runs")]
        answer = (await command(env, "query", "Who?\nAnd why?", "-f", str(file), "-q")).stdout
        contexts = (await command(env, "contexts", "list")).stdout
        runs = (await command(env, "runs", "list")).stdout
        handle, run_id = contexts.split("\t")[0], runs.split("\t")[0]
        piece = await command(env, "contexts", "show", handle, "--lines", "--limit", "1")
        trace = await command(env, "runs", "show", run_id, "--trace")
        variables = await command(env, "runs", "show", run_id, "--variables")
        variable = await command(env, "runs", "show", run_id, "--variable", "long")

    assert [one.stdout for one in empty] == ["", ""]
    assert "contexts add" in empty[0].stderr
    assert answer == "y" * 20_000 + "\n"
    assert contexts.split("\t")[1:3] == ["2,400", "1"]
    assert runs.splitlines()[0].endswith("\tWho? And why?")
    assert piece.stdout == TEXT.splitlines()[0] + "\n"
    assert piece.stderr == "[lines 0 to 1 of 50; more: --start 1]\n"
    assert "place = context.find" in trace.stdout
    assert "long\tstr\t70,000" in variables.stdout
    assert variable.stdout == "x" * 70_000 + "\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["query", "Who?"], "Give --file, --context, --text or --continue"),
        (["query", "Who?", "-c", "ctx_0000000000000000"], "not_found: "),
        (["query", "Who?", "--text", "x", "--option", "temperature"], "'temperature'"),
        (
            ["query", "Who?", "--text", "x", "--option", "temprature=1"],
            "mean 'temperature'",
        ),
        (["query", "Who?", "--text", "x", "--schema", "/no/such.json"], "/no/such.json"),
        (["query", "Who?", "--text", "x", "--max-usd", "x"], "'x' is not a valid float"),
        (["query", "Who?", "-f", "/no/such/file"], "'/no/such/file' does not exist"),
        (["contexts", "show", "ctx_0"], "not_found: "),
        (["contexts", "delete", "ctx_0"], "not_found: "),
        (["contexts", "list", "--cursor", "x"], "invalid_input: "),
        (["runs", "show", "run_0"], "rlm-mcp runs list"),
        (["runs", "show", "run_0", "--trace"], "not_found: "),
        (["runs", "cancel", "run_0"], "not_found: "),
    ],
)
async def test_what_cannot_be_used_is_told_in_a_line_that_names_commands_and_ends_with_2(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    done = await command(environment(tmp_path, "http://127.0.0.1:9/v1"), *arguments)

    assert done.exit_code == 2
    assert told in done.stderr
    assert "rlm_" not in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


@pytest.mark.skipif(os.name != "posix", reason="there are no such terminals elsewhere")
async def test_an_error_on_a_terminal_is_broken_between_words(tmp_path: Path) -> None:
    env = environment(tmp_path) | {"COLUMNS": "40"}
    ours, its = os.openpty()
    with anyio.fail_after(60):
        await anyio.run_process(
            started("contexts", "show", "ctx_0"), env=env, stderr=its, check=False
        )
        await anyio.wait_readable(ours)
    lines = os.read(ours, 65536).decode().splitlines()
    os.close(ours)
    os.close(its)

    assert len(lines) > 1
    assert all(len(line) < 40 for line in lines)
    assert " ".join(lines).endswith("rlm-mcp contexts list lists them all.")


async def test_a_run_that_ends_without_an_answer_ends_the_command_with_1(
    tmp_path: Path, file: Path
) -> None:
    async with open_scripted_model(lambda _: unauthorized()) as model:
        env = environment(tmp_path, model.base_url)
        done = await command(env, "query", "Who?", "-f", str(file), "-q")
        run = json.loads((await command(env, "runs", "list", "--json")).stdout)["runs"][0]
        shown = await command(env, "runs", "show", run["run_id"], "--json")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: model_authentication: ")
    assert len(done.stderr.splitlines()) == 1
    assert run["status"] == "failed"
    assert (shown.exit_code, json.loads(shown.stdout)["answer"]) == (1, None)


async def test_a_file_named_on_the_command_line_may_lie_anywhere_unless_the_settings_say_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for directory in (home, elsewhere / ".hidden", elsewhere / "shown"):
        directory.mkdir(parents=True)
        (directory / "a.txt").write_text(f"In {directory.name}.")
    monkeypatch.chdir(home)
    env = environment(home)
    alone = await printed(env, "contexts", "add", str(elsewhere / ".hidden" / "a.txt"))
    folder = await printed(env, "contexts", "add", str(elsewhere))
    globbed = await printed(env, "contexts", "add", str(elsewhere / "*" / "*.txt"))
    refused = await command(
        env | {"RLM_MCP_ALLOWED_PATHS": str(home)}, "contexts", "add", str(elsewhere)
    )

    assert (alone["documents"], alone["preview"]) == (1, "In .hidden.")
    assert (folder["documents"], folder["preview"]) == (1, "In shown.")
    assert globbed["documents"] == 1
    assert refused.exit_code == 2
    assert "path_not_allowed" in refused.stderr


async def test_standard_input_of_any_size_is_a_text(tmp_path: Path) -> None:
    text = ("Ä line of the harbour's log.\n" * 250_000).encode()
    (tmp_path / "same.txt").write_bytes(text)
    env = environment(tmp_path)
    piped = await process(env, "contexts", "add", "-", given=text)
    stored = await printed(env, "contexts", "add", str(tmp_path / "same.txt"))
    empty = await process(env, "contexts", "add", "-")
    binary = await process(env, "query", "What?", "--text", "-", given=b"\x7fELF\0\0")

    assert piped[:2] == (0, f"{stored['handle']}\n")
    assert stored["deduplicated"]
    assert empty[0] == binary[0] == 2
    assert "Standard input is empty" in empty[2]
    assert "binary" in binary[2]


@pytest.mark.usefixtures("interruptible")
async def test_an_interrupt_leaves_a_run_that_can_be_resumed_and_says_its_id(
    tmp_path: Path, file: Path
) -> None:
    gate = anyio.Event()
    async with open_scripted_model(lambda _: Reply("FINAL(Ottilie)", gate=gate)) as model:
        env = environment(tmp_path, model.base_url)
        arguments = started("query", "Who?", "-f", str(file))
        with anyio.fail_after(60):
            async with await anyio.open_process(arguments, env={**os.environ, **env}) as working:
                await model.until(lambda: model.in_flight == 1)
                working.send_signal(signal.SIGINT)
                assert working.stderr is not None
                told = b"".join([part async for part in working.stderr]).decode()
        runs = json.loads((await command(env, "runs", "list", "--json")).stdout)["runs"]
        gate.set()
        resumed = await command(env, "runs", "resume", runs[0]["run_id"], "--max-iterations", "9")
        completed = await command(env, "runs", "resume", runs[0]["run_id"])

    assert (resumed.exit_code, resumed.stdout) == (0, "Ottilie\n")
    assert (completed.exit_code, completed.stdout) == (2, "")
    assert working.returncode == 130
    assert [run["status"] for run in runs] == ["interrupted"]
    assert f"rlm-mcp runs resume {runs[0]['run_id']}" in told
    assert "Traceback" not in told


LOADING = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path, target=None):
        if name == "MODULE":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from rlm_mcp.__main__ import main
sys.argv[1:] = ["contexts", "list"]
main()
"""


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    "module",
    ["rlm_mcp.cli", "rlm_mcp.cli.commands.query", "rlm_mcp.cli.stored_texts", "rlm_mcp.settings"],
)
async def test_an_interrupt_while_a_command_loads_is_a_word_and_an_exit_code(
    tmp_path: Path, module: str
) -> None:
    program = LOADING.replace("MODULE", module)
    env = {**os.environ, **environment(tmp_path)}
    with anyio.fail_after(120):
        done = await anyio.run_process([sys.executable, "-c", program], env=env, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"Interrupted.\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("query ? --text x --wait 1 --detach", "--wait has no effect with --detach"),
        ("query ? --text x --wait 1 --estimate", "--wait has no effect with --estimate"),
        ("query ? --text x -v --quiet", "--verbose has no effect with --quiet"),
        ("query ? --text - --file -", "Standard input can be read only once"),
        ("contexts add FILE FILE --name x", "--name names one text"),
        ("contexts add FILE --include *.py", "--include has no effect"),
        ("contexts add - - --no-ignore", "Standard input can be read only once"),
        ("contexts add - --no-ignore", "--no-ignore has no effect"),
        ("contexts search x ctx_0 --words -i", "--ignore-case has no effect with --words"),
        ("contexts search x ctx_0 --words --literal", "--literal has no effect with --words"),
        ("runs show run_0 --after 3", "--after has no effect without --trace"),
        ("runs show run_0 --trace --follow", "--trace has no effect with --follow"),
        ("runs show run_0 --variables --variable x", "--variable has no effect with --variables"),
        ("runs resume run_0 -v -q", "--verbose has no effect with --quiet"),
        ("install cursor --remove --with-key", "--with-key has no effect with --remove"),
        ("install cursor --dry-run --yes", "--yes has no effect with --dry-run"),
        ("serve --port 1", "--port has no effect without --http"),
        ("serve --allowed-host x", "--allowed-host has no effect without --http"),
    ],
)
async def test_options_that_can_have_no_effect_are_refused(
    tmp_path: Path, file: Path, arguments: str, told: str
) -> None:
    done = await command(environment(tmp_path), *arguments.replace("FILE", str(file)).split())

    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
    assert not (tmp_path / "data").exists()


async def test_a_page_of_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = await command(environment(tmp_path), "ui", "run_0", "--no-open")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "There is no run 'run_0'. rlm-mcp runs list lists them all." in done.stderr


async def test_a_detached_run_goes_on_when_its_command_has_returned(
    tmp_path: Path, file: Path
) -> None:
    gate = anyio.Event()
    async with open_scripted_model(lambda _: Reply("FINAL(Ottilie)", gate=gate)) as model:
        env = environment(tmp_path, model.base_url)
        code, begun, _ = await process(env, "query", "Who?", "-f", str(file), "--detach")
        run_id = begun.strip()
        working = await command(env, "runs", "show", run_id)
        gate.set()
        ended = await command(env, "runs", "show", run_id, "--follow")
        again = await command(env, "runs", "show", run_id, "--follow")
        refused = await command(env, "query", "Who?", "-c", "ctx_0", "--wait", "5")

    assert (code, working.exit_code) == (0, 0)
    assert run_id in working.stderr
    assert again.stdout == ended.stdout
    assert again.stderr.startswith("completed: ")  # it is not said to be running
    assert working.stdout.strip() == run_id
    assert (ended.exit_code, ended.stdout) == (0, "Ottilie\n")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("Error: not_found: ")


@pytest.mark.parametrize("arguments", [("completion", "bash"), ("demo",)])
async def test_a_reader_that_leaves_early_is_no_error_to_be_told(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    env = {**os.environ, **environment(tmp_path)}
    try:
        done = await anyio.run_process(started(*arguments), env=env, stdout=writing, check=False)
    finally:
        os.close(writing)

    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full")
async def test_output_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, file: Path
) -> None:
    env = {**os.environ, **environment(tmp_path)}
    full = os.open("/dev/full", os.O_WRONLY)
    with anyio.fail_after(120):
        done = await anyio.run_process(
            started("contexts", "add", str(file)), stdout=full, check=False, env=env
        )
    os.close(full)

    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "Error: invalid_input: The output cannot be written: No space left on device. Make room"
        " where it goes, or write it elsewhere."
    ]


async def test_an_exhausted_run_is_told_with_the_command_that_gives_it_more_room(
    tmp_path: Path, file: Path
) -> None:
    async with open_scripted_model(lambda _: cell("print(len(context))")) as model:
        env = environment(tmp_path, model.base_url)
        asked = ("query", "Who?", "-f", str(file), "--max-iterations", "2")
        done = await command(env, *asked)
        quiet = await command(env, *asked, "--quiet")

    assert done.exit_code == 1
    told = done.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"Resume it with more room: rlm-mcp runs resume run_\w+ --max-iterations 4", told
    )
    assert "Resume it" not in quiet.stderr


async def test_handles_and_runs_are_completed_by_the_shell(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_served(tmp_path, SCRIPT) as served:
        handle, run_id = await stored(served, file)
    monkeypatch.setenv("RLM_MCP_DATA_DIR", str(served.settings.data_dir))

    async def completed(*words: str, typed: str = "") -> list[str]:
        shell = BashComplete(main, {}, "rlm-mcp", "_RLM_MCP_COMPLETE")
        found = await anyio.to_thread.run_sync(shell.get_completions, list(words), typed)
        return [item.value for item in found]

    assert await completed("query", "Who?", "--context") == [handle]
    assert await completed("contexts", "show", typed="ctx_") == [handle]
    assert await completed("runs", "cancel") == [run_id]
    assert await completed("runs", "cancel", typed="run_x") == []
    assert "query" in await completed(typed="q")
    monkeypatch.setenv("RLM_MCP_DATA_DIR", str(tmp_path / "nothing"))
    assert await completed("runs", "cancel") == []


async def stored(served: Served, file: Path) -> tuple[str, str]:
    added = await served.call("rlm_context_add", path=str(file))
    run = await served.call("rlm_query", question="Who?", contexts=[added["handle"]])
    return str(added["handle"]), str(run["run_id"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_prints_what_a_shell_can_use(tmp_path: Path, shell: str) -> None:
    done = await command(environment(tmp_path), "completion", shell)

    assert f"_RLM_MCP_COMPLETE={shell}_complete" in done.stdout


def test_help_waits_for_no_library_that_takes_long_to_load() -> None:
    code = (
        "import sys\nfrom rlm_mcp.cli import main\n"
        "for words in ['--help'], ['query', '--help'], ['runs', 'show', '--help']:\n"
        "    main(words, standalone_mode=False)\n"
        "heavy = {'openai', 'mcp', 'mcp_types', 'pydantic', 'rich', 'sqlite3', 'httpx2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    # Measuring coverage loads some of them.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [*started()[:1], "-c", code], capture_output=True, text=True, check=True, env=env
    )

    assert done.stderr == "[]\n"
    assert "QUESTION" in done.stdout


async def test_what_each_model_cost_is_printed_with_how_that_is_known(
    tmp_path: Path, file: Path
) -> None:
    async with open_scripted_model(SCRIPT) as model:
        prices = {"RLM_MCP_COST_PER_INPUT_TOKEN": "0.001", "RLM_MCP_COST_PER_OUTPUT_TOKEN": "0.002"}
        env = environment(tmp_path, model.base_url, **prices)
        done = await command(env, "query", "Who keeps the light?", "--file", str(file))

    assert done.stdout == "Ottilie\n"
    assert re.search(r"^  root: 2 calls, .*, \$\d+\.\d{2,6} \(from prices\)$", done.stderr, re.M)
    assert re.search(r"^  sub: 1 call, .*, \$\d+\.\d{2,6} \(from prices\)$", done.stderr, re.M)
