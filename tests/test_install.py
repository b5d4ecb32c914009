"""`rlm-mcp install`: what is written into the files of hosts, and what is left alone."""

from __future__ import annotations

import json
import re
import shlex
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from rlm_mcp.cli.commands.install import HOST_NAMES
from rlm_mcp.cli.commands.main import main
from rlm_mcp.cli.hosts.files import hide_secrets, with_server, without_server
from rlm_mcp.cli.hosts.host import KEY, ServerCommand, own_command
from rlm_mcp.cli.hosts.installer import plan, snippet, write
from rlm_mcp.cli.hosts.known import HOSTS
from rlm_mcp.errors import InvalidInputError
from tests.serving import KEY as CANARY

DOCUMENT = (Path(__file__).parent.parent / "docs" / "hosts.md").read_text()
STARTED = ServerCommand("uvx", ("rlm-mcp",), {"RLM_MCP_ROOT_MODEL": "gpt-4.1"})
FILES = {
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "claude-code": ".claude.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".config/Code/User/mcp.json",
    "codex": ".codex/config.toml",
    "gemini-cli": ".gemini/settings.json",
    "opencode": ".config/opencode/opencode.json",
    "qwen-code": ".qwen/settings.json",
    "goose": ".config/goose/config.yaml",
    "zed": ".config/zed/settings.json",
    "windsurf": ".codeium/windsurf/mcp_config.json",
    "lm-studio": ".lmstudio/mcp.json",
    "cline": ".cline/data/settings/cline_mcp_settings.json",
    "continue": ".continue/config.yaml",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in (
        "XDG_CONFIG_HOME",
        "CODEX_HOME",
        "CLAUDE_CONFIG_DIR",
        "CLINE_DIR",
        "CLINE_DATA_DIR",
        "CLINE_MCP_SETTINGS_PATH",
        "CONTINUE_GLOBAL_DIR",
        "FLATPAK_XDG_CONFIG_HOME",
        "GEMINI_CLI_HOME",
        "QWEN_HOME",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RLM_MCP_API_KEY", CANARY)
    monkeypatch.setenv("RLM_MCP_ROOT_MODEL", "gpt-4.1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def install(*arguments: str, given: str = "") -> Result:
    return CliRunner().invoke(main, ["install", *arguments], input=given)


def parsed(host: str, text: str) -> dict[str, Any]:
    language = HOSTS[host].language
    if language == "yaml":
        return cast("Any", YAML)(typ="safe", pure=True).load(text)
    return json.loads(text) if language == "json" else tomllib.loads(text)


def servers_in(host: str, text: str) -> dict[str, dict[str, Any]]:
    """The servers in a host's file, each with the usual names of its fields."""
    names = HOSTS[host].fields
    servers: Any = parsed(host, text)[HOSTS[host].servers]
    if isinstance(servers, list):
        servers = {one["name"]: one for one in cast("list[dict[str, Any]]", servers)}
    found: dict[str, dict[str, Any]] = {}
    for name, entry in cast("dict[str, dict[str, Any]]", servers).items():
        command = entry.get(names.command)
        start = [command, *entry.get(names.arguments, [])] if names.arguments else command
        found[name] = {**entry, "start": start, "env": entry.get(names.variables, {})}
    return found


def entry_in(host: str, text: str) -> dict[str, Any]:
    return servers_in(host, text)["rlm"]


def test_every_host_can_be_named() -> None:
    assert set(HOST_NAMES) == HOSTS.keys() == FILES.keys()


@pytest.mark.parametrize("host", HOST_NAMES)
def test_a_host_that_has_no_file_yet_gets_one_that_starts_this_program(
    host: str, home: Path
) -> None:
    done = install(host, "--yes")
    file = home / FILES[host]
    entry = entry_in(host, file.read_text())

    assert done.exit_code == 0, done.output
    assert str(file) in done.stdout
    command, arguments = own_command()
    assert entry["start"] == [command, *arguments]
    assert entry["env"] == {KEY: HOSTS[host].key, "RLM_MCP_ROOT_MODEL": "gpt-4.1"}
    assert CANARY not in done.output + file.read_text()
    assert list(file.parent.glob("*.bak")) == []


@pytest.mark.parametrize("host", HOST_NAMES)
def test_installing_again_changes_nothing_and_removing_leaves_what_was_there(
    host: str, home: Path
) -> None:
    file = home / FILES[host]
    file.parent.mkdir(parents=True, exist_ok=True)
    before = EXISTING.get(host) or OTHERS[HOSTS[host].language].replace(
        "SERVERS", HOSTS[host].servers
    )
    file.write_text(before)
    first = install(host, "--yes")
    installed = file.read_text()
    again = install(host, "--yes")
    gone = install(host, "--yes", "--remove")
    absent = install(host, "--yes", "--remove")

    assert (first.exit_code, again.exit_code, gone.exit_code, absent.exit_code) == (0, 0, 0, 0)
    assert "Nothing to change" in again.stdout
    assert "Nothing to change" in absent.stdout
    assert installed != before
    assert servers_in(host, installed)["other"]["start"] == ["x", "é"]
    assert [copy.read_text() for copy in sorted(file.parent.glob("*.bak"))] == [before, installed]
    assert file.read_text() == before


OTHERS = {
    "json": '{\n\t"first": 1.50,\n\t"SERVERS": {\n\t\t"other": {\n\t\t\t"command": "x",\n'
    '\t\t\t"args": ["é"]\n\t\t}\n\t},\n\t"last": {}\n}',
    "toml": '# mine\nmodel = "m"  # best\n\n[SERVERS.other]\ncommand = "x"\nargs = ["é"]\n\n'
    "[tui]\nx = 1 # one\n",
}
EXISTING = {
    "opencode": '{\n  "mcp": {\n    "other": { "type": "local", "command": ["x", "é"] }\n  }\n}\n',
    "goose": "# mine\nGOOSE_MODEL: 'm'   # best\nextensions:\n    other:  # old\n        cmd: x\n"
    "        args: [é]\n        enabled: no\n\n# the end\nGOOSE_MODE: auto\n",
    "continue": "name: Mine # yes\nmodels: []\nmcpServers:\n- name: other\n  command: x\n  args:\n"
    "  - é  # one\n\nrules:\n  - short\n",
}


@pytest.mark.parametrize("host", HOST_NAMES)
def test_removing_deletes_a_file_that_installing_made(host: str, home: Path) -> None:
    file = home / FILES[host]
    install(host, "--yes")
    gone = install(host, "--yes", "--remove")
    absent = install(host, "--yes", "--remove")

    assert (gone.exit_code, absent.exit_code) == (0, 0)
    assert f"Deleted: {file}; it held nothing else" in gone.stdout
    assert "Nothing to change" in absent.stdout
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    "before", [b"{}", b'{"mcpServers": {}}', b"{\r\n}\n", b"\xef\xbb\xbf{ }\n"]
)
def test_removing_leaves_a_file_of_somebody_else_byte_for_byte(before: bytes, home: Path) -> None:
    file = home / FILES["cursor"]
    file.parent.mkdir()
    file.write_bytes(before)
    install("cursor", "--yes")
    install("cursor", "--yes", "--with-key")  # written twice
    install("cursor", "--yes", "--remove")

    assert file.read_bytes() == before


def test_removing_keeps_what_was_written_after_installing(home: Path) -> None:
    file = home / FILES["cursor"]
    install("cursor", "--yes")
    servers = json.loads(file.read_text())
    servers["mcpServers"]["other"] = {"command": "x"}
    file.write_text(json.dumps(servers, indent=2))
    install("cursor", "--yes", "--remove")

    assert json.loads(file.read_text()) == {"mcpServers": {"other": {"command": "x"}}}


def test_an_entry_that_is_there_keeps_its_key_and_what_else_was_set_in_it() -> None:
    for name, host in HOSTS.items():
        theirs = ServerCommand("old", (), {"MINE": "1"}, key="sk-mine").entry(host)
        edited = with_server(snippet(host, STARTED), host, {**theirs, "disabled": True})
        entry = entry_in(name, with_server(edited, host, STARTED.entry(host)))

        assert (entry["start"], entry["disabled"]) == (["uvx", "rlm-mcp"], True)
        assert entry["env"] == {KEY: "sk-mine", "RLM_MCP_ROOT_MODEL": "gpt-4.1", "MINE": "1"}


def test_the_key_is_written_only_when_asked_for_is_never_shown_and_is_its_owners_to_read(
    home: Path,
) -> None:
    file = home / FILES["cursor"]
    file.parent.mkdir()
    file.write_text("{}")
    file.chmod(0o644)
    plain = install("cursor", "--yes")
    mode = stat.S_IMODE(file.stat().st_mode)
    keyed = install("cursor", "--yes", "--with-key")
    shared = install("cursor", "--project", "--with-key", "--yes")
    removed = install("cursor", "--yes", "--remove")

    assert mode == 0o644
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "by your API key" in plain.stdout
    assert '+        "RLM_MCP_API_KEY": "***",' in keyed.stdout
    assert shared.exit_code == 2
    assert CANARY not in plain.output + keyed.output + shared.output + removed.output
    written = [copy.read_text() for copy in sorted(file.parent.glob("*.bak"))]
    assert [CANARY in text for text in written] == [False, False, True]


def test_a_host_without_a_model_is_warned_of_also_on_a_dry_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = install("cursor", "--dry-run")
    monkeypatch.delenv("RLM_MCP_ROOT_MODEL")
    nameless = install("cursor", "--dry-run")

    assert (named.stderr, list(home.iterdir())) == ("", [])
    assert "Set RLM_MCP_ROOT_MODEL" in nameless.stderr


@pytest.mark.parametrize("host", HOST_NAMES)
def test_a_dry_run_shows_what_would_be_written_and_removed(host: str, home: Path) -> None:
    file = home / FILES[host]
    shown = install(host, "--dry-run")
    assert not file.exists()
    install(host, "--yes")
    written = file.read_text()
    gone = install(host, "--dry-run", "--remove")

    assert (shown.exit_code, gone.exit_code) == (0, 0)
    assert [line for line in shown.stdout.splitlines() if line.startswith("+")][1:] == [
        f"+{line}" for line in written.splitlines()
    ]
    assert "-" in {line[:1] for line in gone.stdout.splitlines()}
    assert file.read_text() == written


def test_nothing_is_written_on_a_dry_run_or_when_the_answer_is_no(home: Path) -> None:
    dry = install("vscode", "--dry-run")
    refused = install("vscode", given="n\n")
    unanswered = install("vscode")
    taken = install("vscode", "--project", given="y\n")

    assert (dry.exit_code, refused.exit_code, unanswered.exit_code) == (0, 2, 2)
    assert "Give --yes" in unanswered.stderr
    assert '+    "rlm": {' in dry.stdout
    assert "Write this?" in refused.stderr
    assert not (home / FILES["vscode"]).exists()
    assert taken.exit_code == 0
    assert "rlm" in json.loads((home / ".vscode/mcp.json").read_text())["servers"]


@pytest.mark.parametrize(
    ("host", "text", "why"),
    [
        ("vscode", '{\n  // mine\n  "servers": {]\n}', "line 3"),
        ("cursor", "[]", "not a JSON object"),
        ("cursor", '{"mcpServers": []}', "'mcpServers' is not a table"),
        ("cursor", '{"a": 1, "a": 2}', "twice"),
        ("cursor", '{"a": 1 "b": 2}', "a comma"),
        ("cursor", '{"a": 1}, {}', "nothing more"),
        ("cursor", '{"mcpServers": {"rlm": nul}}', "a value"),
        ("cursor", "{a: 1}", "a value"),
        ("zed", '{"context_servers": {}', "line 1"),
        ("goose", "a: [", "not YAML"),
        ("goose", "- a", "not a YAML mapping"),
        ("goose", "extensions: 1", "'extensions' is not a table"),
        ("goose", "extensions: {a: {cmd: x}}", "is written on one line"),
        ("goose", "extensions:\n  a: 1", "not a table of tables"),
        ("goose", "extensions:\n  rlm: {cmd: x}", "is written on one line"),
        ("goose", "a: &x\n  b: {}\nextensions: *x", "layout"),
        ("continue", "mcpServers:\n  - command: x", "tables with names"),
        ("claude-code", "\xff", "can't decode"),
        ("codex", "a = ", "not TOML"),
        ("codex", "mcp_servers = 1", "'mcp_servers' is not a table"),
        ("codex", "[mcp_servers]\nrlm = 1", "mcp_servers.rlm is not a table"),
    ],
)
def test_a_file_that_cannot_be_read_for_certain_is_left_alone_and_the_snippet_is_printed(
    host: str, text: str, why: str, home: Path
) -> None:
    file = home / FILES[host]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode("latin-1"))
    done = install(host, "--yes")

    assert done.exit_code == 2
    assert why in done.stderr
    assert entry_in(host, done.stdout)["env"]["RLM_MCP_ROOT_MODEL"] == "gpt-4.1"
    assert file.read_bytes() == text.encode("latin-1")


def test_links_line_ends_and_marks_stay_and_a_change_by_somebody_else_is_not_lost(
    tmp_path: Path,
) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_bytes(b'\xef\xbb\xbf{\r\n  "a": 1\r\n}\r\n')
    link = tmp_path / "mcp.json"
    link.symlink_to(real)
    change = plan(link, HOSTS["cursor"], STARTED)
    write(change)
    with pytest.raises(InvalidInputError, match="has changed"):
        write(change)

    assert link.is_symlink()
    assert real.read_bytes().startswith(b'\xef\xbb\xbf{\r\n  "a": 1,\r\n  "mcpServers": {\r\n')
    assert not plan(link, HOSTS["cursor"], STARTED).is_needed


@pytest.mark.parametrize("host", HOST_NAMES)
def test_settings_of_a_file_stay_in_it(host: str, home: Path) -> None:
    (home / "rlm.toml").write_text("root_model = 'm'\nmax_iterations = 9\n")
    runner = CliRunner(env={"RLM_MCP_ROOT_MODEL": "", "RLM_MCP_MAX_SECONDS": "60"})
    done = runner.invoke(main, ["--config", "rlm.toml", "install", host, "--yes"])
    entry = entry_in(host, (home / FILES[host]).read_text())

    assert done.exit_code == 0
    assert entry["start"][-2:] == ["--config", str(home / "rlm.toml")]
    assert entry["env"] == {KEY: HOSTS[host].key, "RLM_MCP_MAX_SECONDS": "60.0"}


def test_a_server_of_ones_own_needs_no_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLM_MCP_API_KEY")
    monkeypatch.setenv("RLM_MCP_BASE_URL", "http://127.0.0.1:11434/v1")
    install("cursor", "--yes")

    assert KEY not in entry_in("cursor", (home / FILES["cursor"]).read_text())["env"]


def test_secrets_in_a_shown_line_are_stars() -> None:
    line = 'env = {A_TOKEN = "abc", "RLM_MCP_API_KEY": "sk-...", URL = "http://me:pw@host/v1"}'

    assert hide_secrets(line) == (
        'env = {A_TOKEN = "***", "RLM_MCP_API_KEY": "sk-...", URL = "http://***@host/v1"}'
    )


@pytest.mark.parametrize("host", HOST_NAMES)
def test_removing_from_a_file_without_the_server_changes_nothing(host: str) -> None:
    text = {"json": '{"a":   1}', "toml": "a =   1", "yaml": "a:   1"}[HOSTS[host].language]

    assert without_server(text, HOSTS[host]) == text


def shown_in_documents() -> Mapping[str, str]:
    """What the document of hosts puts into each host's file."""
    parts = re.split(r"^\*\*", DOCUMENT, flags=re.MULTILINE)
    return {
        name: found[1]
        for name, host in HOSTS.items()
        for part in parts
        if host.title in part.splitlines()[0]
        and (found := re.search(r"^```\w+\n(.*?)^```$", part, re.DOTALL | re.MULTILINE))
    }


@pytest.mark.parametrize("host", HOST_NAMES)
def test_what_the_readme_shows_of_a_host_is_what_is_written(host: str) -> None:
    shown = shown_in_documents()[host]
    if host == "claude-code":
        shown = as_written_by_claude(shown)
    env = entry_in(host, shown)["env"]
    started = ServerCommand("uvx", ("rlm-mcp",), {name: env[name] for name in env if name != KEY})

    assert parsed(host, snippet(HOSTS[host], started)) == parsed(host, shown)


def as_written_by_claude(command: str) -> str:
    """What `claude mcp add NAME -e A=B ... -- COMMAND ARGUMENT...` puts into its file."""
    words = shlex.split(command)
    own, started = words[: words.index("--")], words[words.index("--") + 1 :]
    env = dict(own[at + 1].split("=", 1) for at, word in enumerate(own) if word == "-e")
    entry = {"type": "stdio", "command": started[0], "args": started[1:], "env": env}
    return json.dumps({"mcpServers": {own[3]: entry}})
