"""Options that contradict each other are refused by name, and what is given twice is not lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import pytest

from rlm_mcp.cli.commands.main import main
from rlm_mcp.cli.commands.options import CheckedCommand
from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.commands import command, environment, process
from tests.reference import commands
from tests.serving import cell, turns
from tests.test_terminal_lists import at_terminal

TWICE = [
    (f"{path.removeprefix('rlm-mcp ')} {option.opts[0]}", option.opts)
    for path, one in commands(main, "rlm-mcp")
    for option in one.params
    if isinstance(option, click.Option) and not option.multiple and not option.is_flag
]


def test_every_command_looks_for_contradictions() -> None:
    every = [one for _, one in commands(main, "rlm-mcp")]

    assert len(every) > 15
    assert [one.name for one in every if not isinstance(one, CheckedCommand)] == []


@pytest.mark.parametrize(("given", "names"), TWICE)
async def test_an_option_that_takes_one_value_is_refused_when_it_is_given_twice(
    tmp_path: Path, given: str, names: list[str]
) -> None:
    *path, option = given.split()
    done = await command(environment(tmp_path), *path, option, "1", option, "2")

    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{max(names, key=len)} is given twice: give it once." in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("runs export run_0 --html --json", "Give --html or --json, not both."),
        ("runs export run_0 --trace --no-texts --html", "Give --trace or --html, not both."),
        ("--config a --config b doctor", "--config is given twice: give it once."),
        ("query ? --text x --wait nan", "nan is not a number of seconds."),
        (
            "query ? --text x --attempts 2 --option attempts=3",
            "Give --attempts or --option attempts=N, not both.",
        ),
        (
            "query ? --text x --option temperature=0 --option temperature=1",
            "The option 'temperature' is given twice, as '0' and as '1'. Give it once.",
        ),
        ("query ? --text - --file /dev/stdin", "Standard input can be read only once"),
        ("contexts add - /dev/stdin", "Standard input can be read only once"),
        ("contexts add /dev/stdin --include *.py", "--include has no effect"),
        ("batch FILE --texts ctx_0 --out FILE", "--out would overwrite 'FILE'"),
        ("batch FILE --texts FOLDER/../texts.txt --out FOLDER/../texts.txt", "--out would overwr"),
    ],
)
async def test_options_that_contradict_each_other_are_refused_and_nothing_is_stored(
    tmp_path: Path, arguments: str, told: str
) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / "questions.jsonl"
    file.write_text('{"id": "a", "question": "?"}\n')
    filled = [text.replace("FILE", str(file)) for text in (*arguments.split(), told)]
    *given, expected = [text.replace("FOLDER", str(tmp_path / "folder")) for text in filled]
    done = await command(environment(tmp_path), *given)

    assert (done.exit_code, done.stdout) == (2, "")
    assert expected in done.stderr
    assert file.read_text() == '{"id": "a", "question": "?"}\n'
    assert not (tmp_path / "data").exists()


async def test_a_flag_given_twice_says_the_same_as_once(tmp_path: Path) -> None:
    done = await command(environment(tmp_path), "runs", "list", "--json", "--json")

    assert json.loads(done.stdout) == {"runs": [], "next_cursor": None}


async def test_a_variable_without_a_name_is_refused_and_the_answer_is_not_shown_for_it(
    tmp_path: Path,
) -> None:
    async with open_scripted_model(turns(cell("x = 1\nprint(context)"), "FINAL(x)")) as model:
        given = environment(tmp_path, model.base_url)
        asked = await command(given, "query", "What?", "--text", "a text", "--json")
        run_id = json.loads(asked.stdout)["run_id"]
        done = await command(given, "runs", "show", run_id, "--variable", "")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "has no variable ''. It has x." in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="there are no such terminals elsewhere")
@pytest.mark.parametrize("is_quiet", [True, False])
async def test_a_quiet_question_shows_no_progress_of_its_texts_either(
    tmp_path: Path, is_quiet: bool
) -> None:
    path = tmp_path / "log.txt"
    path.write_text("a line\n" * 10_000)
    async with open_scripted_model(turns(cell("print(context[:9])"), "FINAL(it is)")) as model:
        env = environment(tmp_path, model.base_url)
        quiet = ("--quiet",) if is_quiet else ()
        code, shown = await at_terminal(env, "query", "What?", "--file", str(path), *quiet)

    assert code == 0
    assert any("storing" in line for line in shown) is not is_quiet
    assert "it is" in shown


async def test_results_of_a_batch_that_lie_among_its_texts_are_no_text_of_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a [strange] folder"
    folder.mkdir()
    (folder / "one.txt").write_text("one two\n" * 20)
    questions, out = folder / "the questions!.jsonl", folder / "its [own] results.jsonl"
    questions.write_text('{"id": "a", "question": "What is it?", "expected": "a secret"}\n')
    script = turns(cell("print(type(context), len(context))"), "FINAL(seen)")
    async with open_scripted_model(script) as model:
        env = environment(tmp_path, model.base_url)
        given = ("batch", str(questions), "--texts", str(folder), "--out", str(out))
        first = await process(env, *given)
        asked = model.received
        again = await process(env, *given)
        globbed = ("batch", str(questions), "--texts", f"{folder}/*", "--out", str(out))
        other = await process(env, *globbed)
        received = model.received
        listed = await command(env, "contexts", "list", "--json")

    assert [done[0] for done in (first, again, other)] == [0, 0, 0], (first, again, other)
    assert received == asked > 0
    [stored] = json.loads(listed.stdout)["contexts"]
    assert stored["documents"] == 1
