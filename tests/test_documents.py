"""The documents name all that exists, and show only what works."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import shlex
import tomllib
from array import array
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import anyio
import anyio.to_thread
import click
import pytest

import rlm_mcp
from rlm_mcp import BatchLine, RLMEvent, RLMResponse, cli
from rlm_mcp.events import CheckedCitation, Support
from rlm_mcp.sandbox.child.calls import CallDesk
from rlm_mcp.sandbox.child.documents import Documents
from rlm_mcp.sandbox.child.namespace import Namespace
from rlm_mcp.sandbox.types import ReplOptions
from rlm_mcp.server.http.metrics import metrics_routes
from rlm_mcp.server.http.page import page_routes
from rlm_mcp.server.http.prometheus import write_metrics
from rlm_mcp.server.http.routes import make_routes
from rlm_mcp.server.tool import CALLER_SECONDS, SILENT_SECONDS, USUAL_SECONDS
from rlm_mcp.service.batch.lines import read_lines
from rlm_mcp.service.measures import Measures
from rlm_mcp.service.runs.live import Tally
from rlm_mcp.settings import PREFIX, Settings
from rlm_mcp.testing.scripted_model import open_scripted_model
from tests.commands import environment
from tests.reference import DOCUMENTS, ROOT, commands, made
from tests.sandbox_attempts import ATTEMPTS
from tests.surface import surface

TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS}
ALL = "\n".join(TEXTS.values())
COMMANDS = dict(commands(cli.main, "rlm-mcp"))
# Names of the REPL and of packages that begin as tools do.
FOREIGN_OPTIONS = {"--config", "--all"}  # of the group itself, and of a benchmark
NO_TOOLS = {"rlm_worker", "rlm_mcp", "rlm_query_batch", "rlm_query_batched"}
_NOTHING = Measures({}, Tally(), {}, 0, 0, is_whole=False)
METRICS = set(re.findall(r"# TYPE (\w+)", write_metrics(_NOTHING).decode()))


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Every fenced block in one of these languages, with the document it stands in."""
    fence = rf"^```(?:{'|'.join(languages)})\n(.*?)^```$"
    return [
        (name, block)
        for name, text in TEXTS.items()
        for block in re.findall(fence, text, re.DOTALL | re.MULTILINE)
    ]


def anchors(text: str) -> set[str]:
    """The anchors that a reader on the web gets for a document's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return set(words)


LINKS = [
    (name, target)
    for name, text in TEXTS.items()
    for target in re.findall(r"\]\(([^)\s]+)\)", text)
    if not re.match(r"[a-z]+:", target)
]


@pytest.mark.parametrize(("name", "target"), LINKS)
def test_a_link_leads_to_a_file_and_to_a_heading_of_it(name: str, target: str) -> None:
    file, _, anchor = target.partition("#")
    path = ((ROOT / name).parent / file).resolve() if file else ROOT / name

    assert path.exists()
    assert not anchor or anchor in anchors(path.read_text())


async def test_what_is_made_from_the_code_is_up_to_date() -> None:
    told = await surface()
    stale = [name for name, text in TEXTS.items() if made(text, told) != text]

    assert not stale, "Run `uv run python -m tests.surface`."


async def test_every_tool_is_named_and_no_other() -> None:
    tools = {tool["name"] for tool in (await surface())["tools"]}
    named = set(re.findall(r"(?<![\w/.])rlm_[a-z_]+[a-z]\b(?![\w/.])", ALL)) - NO_TOOLS

    assert named - METRICS == tools


def test_every_metric_is_named_and_no_other() -> None:
    rows = re.findall(r"^\| (`rlm_.*?) \|", TEXTS["docs/http.md"], re.MULTILINE)

    assert {name for row in rows for name in re.findall(r"rlm_\w+", row)} == METRICS


def test_every_name_of_the_repl_is_told_and_no_other() -> None:
    options = ReplOptions(recursion=True)
    given = Namespace("text", Documents(b"", 0, array("Q")), CallDesk(print, 1), options)
    known = {name for name, value in given.variables.items() if not isinstance(value, ModuleType)}
    section = TEXTS["docs/tools.md"].split("\n## Names in the REPL\n")[1].split("\n## ")[0]
    rows = "\n".join(line for line in section.splitlines() if line.startswith("| `"))

    assert set(re.findall(r"`(\w+)(?:\(.*?\))?`", rows)) - {"str"} == {
        name for name in known if not name.startswith("__")
    }


def test_every_setting_is_named_and_no_other() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    named = set(re.findall(r"RLM_MCP_[A-Z_]*[A-Z]", ALL))

    assert named == settings


def test_the_attempts_on_the_sandbox_are_counted_right() -> None:
    assert f"has {len(ATTEMPTS)} attempts" in TEXTS["docs/security.md"]


def test_every_route_is_named_with_its_method_and_no_other() -> None:
    served = {
        (method, re.sub(r":\w+", "", route.path))
        for route in (*make_routes(), *page_routes(), *metrics_routes())
        for method in route.methods or ()
        if method != "HEAD"
    }
    rows = re.findall(r"^\| (`(?:GET|PUT) .*?) \|", TEXTS["docs/http.md"], re.MULTILINE)
    named = {
        (re.findall(r"GET|PUT", row)[0], path)
        for row in rows
        for path in re.findall(r"(?:GET |PUT |`)(/[^?`]*)", row)
    }

    assert named == served


@pytest.mark.parametrize(("path", "command"), COMMANDS.items())
def test_every_command_and_option_says_what_it_is_for(path: str, command: click.Command) -> None:
    options = [option for option in command.params if isinstance(option, click.Option)]

    assert command.help, path
    assert not command.get_short_help_str(60).endswith("..."), "it is cut in the list of commands"
    assert [option.name for option in options if not option.help] == []


def shown_commands() -> Iterator[tuple[str, str]]:
    """Every `rlm-mcp` command that stands in a block of a shell or in a line of text."""
    for name, block in blocks("bash"):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            for part in re.split(r"[|;&]+ ", line.partition("  #")[0]):
                if found := re.search(r"(?<![\w/-])rlm-mcp( .*|$)", part):
                    yield name, found[0]
    for name, text in TEXTS.items():
        for found in re.findall(r"(?<!`)`(?:uv run )?(rlm-mcp [^`]*)`(?!`)", text):
            yield name, found


def is_usage(words: list[str]) -> bool:
    """Whether it is the head of an entry of the reference, made from the command itself."""
    return any(re.search(r"[{|\[]|\.\.\.", word) for word in words)


@pytest.mark.parametrize(("name", "line"), sorted(set(shown_commands())))
def test_a_command_that_is_shown_is_one(name: str, line: str) -> None:
    words = shlex.split(line)[1:]
    if words[:1] == ["--config"]:
        words = words[2:]
    command: click.Command = cli.main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]
    if isinstance(command, click.Group) or is_usage(words):
        return
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}

    assert {word for word in words if re.match("--?[a-z]", word)} <= options, (name, line)


def test_every_option_that_is_named_alone_is_one() -> None:
    ours = {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(re.findall(r"(?<!`)`(--[a-z-]+)(?: [A-Z=]+)?`", ALL))

    assert named - FOREIGN_OPTIONS <= ours


@pytest.mark.parametrize(("name", "block"), blocks("json"))
def test_a_json_block_is_json_that_starts_the_server(name: str, block: str) -> None:
    config = json.loads(block)
    tables = ("mcpServers", "servers", "mcp", "context_servers")
    [server] = next(config[table] for table in tables if table in config).values()
    started = [server["command"], *server["args"]] if "args" in server else server["command"]
    variables = server.get("env") or server["environment"]

    assert started == ["uvx", "rlm-mcp"], name
    assert all(name.removeprefix(PREFIX).lower() in Settings.model_fields for name in variables)


@pytest.mark.parametrize(("name", "block"), blocks("jsonl"))
def test_a_block_of_json_lines_holds_questions_of_a_batch(name: str, block: str) -> None:
    good, bad = read_lines(block.splitlines())

    assert good, name
    assert not bad


@pytest.mark.parametrize(("name", "block"), blocks("toml"))
def test_a_toml_block_starts_the_server_or_holds_settings(name: str, block: str) -> None:
    values = tomllib.loads(block)
    if "mcp_servers" not in values:
        assert Settings.model_validate(values), name
        return
    [server] = values["mcp_servers"].values()

    assert (server["command"], server["args"]) == ("uvx", ["rlm-mcp"]), name
    assert all(name.removeprefix(PREFIX).lower() in Settings.model_fields for name in server["env"])


@pytest.mark.parametrize(("name", "block"), blocks("python"))
def test_a_python_block_parses_and_imports_what_exists(name: str, block: str) -> None:
    tree = compile(block, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "rlm_mcp":
            for alias in node.names:
                assert hasattr(rlm_mcp, alias.name)


@pytest.mark.parametrize(("name", "block"), blocks("python"))
async def test_a_python_block_runs(
    name: str,
    block: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await anyio.Path(tmp_path / "letter.txt").write_text("A letter.")
    texts = ["One document.", "Another one."]
    code = compile(block, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    given: dict[str, object] = {"very_long_text": texts[0] * 1000, "list_of_documents": texts}
    given["corpus"] = tmp_path / "letter.txt"
    awaited = eval if not code.co_flags & inspect.CO_COROUTINE else run_coroutine
    async with open_scripted_model("```repl\nFINAL(['one', 'two'])\n```") as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        for variable, value in environment(tmp_path, model.base_url).items():
            monkeypatch.setenv(variable, value)
        await anyio.to_thread.run_sync(awaited, code, given)

    response = given.get("response")
    assert not isinstance(response, RLMResponse) or response.status == "completed"
    assert "Error" not in capsys.readouterr().err


def run_coroutine(code: CodeType, given: dict[str, object]) -> None:
    """Run code that awaits at its top, as a notebook does."""
    asyncio.run(eval(code, given))


def test_every_public_name_of_the_library_is_in_its_document_or_in_the_error_tree() -> None:
    errors = (ROOT / "rlm_mcp" / "errors.py").read_text()
    known = TEXTS["docs/library.md"] + errors

    assert [name for name in rlm_mcp.__all__ if name not in known and name[0] != "_"] == []


@pytest.mark.parametrize("kind", [BatchLine, CheckedCitation, RLMEvent, RLMResponse, Support])
def test_every_field_of_what_a_program_gets_or_gives_is_told(kind: Any) -> None:
    told = TEXTS["docs/library.md"] + TEXTS["docs/answers.md"]

    assert [one.name for one in fields(kind) if f"`{one.name}`" not in told] == []


def test_the_two_commands_of_the_front_page_stand_as_they_are() -> None:
    readme = TEXTS["README.md"]

    assert "```bash\npip install uv && uv run rlm-mcp demo\n```" in readme
    assert "```bash\npip install uv && uv run pytest\n```" in readme


def test_the_test_command_is_the_one_that_is_run_before_a_change_lands() -> None:
    command = "pip install --quiet uv && uv run pytest"

    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_front_page_is_short_and_names_every_document() -> None:
    readme = TEXTS["README.md"]

    assert len(readme.splitlines()) <= 170
    assert [path.name for path in Path(ROOT / "docs").glob("*.md") if path.name not in readme] == []


def test_figures_that_are_told_are_those_of_the_code() -> None:
    shown_whole = Settings.model_fields["direct_max_chars"].default
    codex, hosts = CALLER_SECONDS["codex-mcp-client"], TEXTS["docs/hosts.md"]

    assert f"one of up to {shown_whole:,} characters" in TEXTS["README.md"]
    assert f"one of Codex {codex:g} seconds, of other hosts {USUAL_SECONDS:g}" in hosts
    assert f"asks for no progress {SILENT_SECONDS:g}, " in hosts


def test_every_host_is_told_how_to_connect() -> None:
    for host in ("Claude Desktop", "Claude Code", "VS Code", "Cursor", "Codex"):
        assert f"**{host}**" in TEXTS["docs/hosts.md"]


def test_the_changelog_tells_of_this_version_and_of_what_comes() -> None:
    versions = re.findall(r"^## \[(.+?)\]", TEXTS["CHANGELOG.md"], re.MULTILINE)

    assert versions[:2] == ["Unreleased", rlm_mcp.__version__]


def test_the_changelog_uses_the_sections_of_its_format() -> None:
    sections = set(re.findall(r"^### (.+)$", TEXTS["CHANGELOG.md"], re.MULTILINE))

    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
