"""Texts of hosts' files, with comments and unusual layouts: what an edit changes, and what not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlm_mcp.cli.hosts.files import hide_secrets, with_server, without_server
from rlm_mcp.cli.hosts.host import KEY, ServerCommand
from rlm_mcp.cli.hosts.json_file import json_value, json_with, json_without
from rlm_mcp.cli.hosts.known import HOSTS
from rlm_mcp.cli.hosts.yaml_outline import yaml_value
from rlm_mcp.errors import InvalidInputError

STARTED = ServerCommand("uvx", ("rlm-mcp",), {"RLM_MCP_ROOT_MODEL": "gpt-4.1"})
COMMENT = re.compile(r"(?:#|//)[^\n]*|/\*.*?\*/", re.DOTALL)
JSON_TEXTS = (
    '// mine\n{\n  // servers\n  "SERVERS": {\n    "b": 1, // one\n    "c": [1, 2,], /* two */\n'
    "  },\n}\n",
    '{\n\t"SERVERS": {\n\t\t// nothing yet\n\t}, // so far\n\t"url": "http://x/*y*/" // ours\n}',
    '{\n  "a": 1.50,\n  "SERVERS": {\n    "b": {} // the last\n    // and a word\n  }\n}\n',
    '{ "SERVERS": { "b": "with \\"quotes\\", /* and no comment */" } }\n',
    '{\n    "SERVERS":\n    {\n        "b": 1\n    }\n}\n',
)
YAML_TEXTS = (
    "# mine\n\nSERVERS:\n  - name: b # one\n    command: x\n  # two\n  - {name: c, command: y}\n\n"
    "# end\nz: 1\n",
    "SERVERS:\n- command: x\n  name: b\n  text: |\n    # not a comment\n    more\n\nz: 1\n",
    "SERVERS: # these\n  - name: b\n    env:\n    # empty\n# the end",
    "a: 'b'\nz: &x [1]\ny: *x # again\n",
    "SERVERS: [] # none\nz: 1\n",
    "z: 1\nSERVERS:\n",
    "z: 1",
    "",
)


def comments(text: str) -> list[str]:
    return COMMENT.findall(text)


@pytest.mark.parametrize("text", JSON_TEXTS)
@pytest.mark.parametrize("host", [name for name, one in HOSTS.items() if one.language == "json"])
def test_an_entry_comes_into_commented_json_and_goes_again(host: str, text: str) -> None:
    known = HOSTS[host]
    before = text.replace("SERVERS", known.servers)
    after = with_server(before, known, STARTED.entry(known))
    said = json_value(after)
    left = without_server(after, known)

    assert said[known.servers]["rlm"] == STARTED.entry(known)
    assert comments(after) == comments(before)
    assert with_server(after, known, STARTED.entry(known)) == after
    assert json_value(left) == json_value(before) | ({"inputs": []} if known.inputs else {})
    if "\n" in before.strip() and not known.inputs:
        assert left == before or not json_value(before)[known.servers]


@pytest.mark.parametrize("text", YAML_TEXTS)
def test_an_entry_comes_into_commented_yaml_and_goes_again(text: str) -> None:
    known = HOSTS["continue"]
    before = text.replace("SERVERS", known.servers)
    after = with_server(before, known, STARTED.entry(known))
    left = without_server(after, known)

    assert yaml_value(after)[known.servers][-1] == STARTED.entry(known)
    assert comments(after) == comments(before)
    assert with_server(after, known, STARTED.entry(known)) == after
    if yaml_value(before).get(known.servers):
        assert left.rstrip("\n") == before.rstrip("\n")
    else:
        assert known.servers not in yaml_value(left)


@pytest.mark.parametrize(
    "text",
    [
        "# mine\nextensions:\n  b: # one\n    cmd: x # two\n\n# end\nz: 1\n",
        "extensions:\n      b: {cmd: x}\n      # c: none\nz: 1 # one\n",
        "z: 1 # one\n",
    ],
)
def test_an_entry_comes_into_the_mapping_of_goose_and_goes_again(text: str) -> None:
    goose = HOSTS["goose"]
    after = with_server(text, goose, STARTED.entry(goose))

    assert yaml_value(after)["extensions"]["rlm"] == STARTED.entry(goose)
    assert comments(after) == comments(text)
    assert without_server(after, goose) == text


def test_comments_inside_of_our_own_entry_stay_when_it_is_renewed() -> None:
    zed = HOSTS["zed"]
    text = with_server("", zed, STARTED.entry(zed))
    text = text.replace('"uvx",', '"old", // mine\n').replace('"sk-..."', '"sk-me" /* the key */')
    renewed = with_server(text, zed, STARTED.entry(zed))
    goose = HOSTS["goose"]
    block = with_server("", goose, STARTED.entry(goose))
    block = block.replace('"uvx"', "old # mine").replace('"sk-..."', "sk-me # the key")
    renewed_block = with_server(block, goose, STARTED.entry(goose))

    assert comments(renewed) == comments(text)
    assert json_value(renewed)["context_servers"]["rlm"]["env"][KEY] == "sk-me"
    assert '"command": "uvx", // mine' in renewed
    assert 'cmd: "uvx" # mine\n' in renewed_block
    assert f"{KEY}: sk-me # the key\n" in renewed_block


def test_the_newer_form_of_opencode_is_kept() -> None:
    host = HOSTS["opencode"]
    text = '{\n  "mcp": {\n    "servers": {\n      "b": { "type": "local" } // one\n    }\n  }\n}\n'
    after = with_server(text, host, STARTED.entry(host))
    entry = json_value(after)["mcp"]["servers"]["rlm"]
    named = '{"mcp": {"servers": {"type": "local"}}}'

    assert (entry["command"], "timeout" in entry) == (["uvx", "rlm-mcp"], False)
    assert without_server(after, host) == text
    assert "rlm" in json_value(with_server(named, host, STARTED.entry(host)))["mcp"]


def test_an_input_of_vscode_comes_beside_others_and_goes_alone() -> None:
    host = HOSTS["vscode"]
    text = '{\n  "inputs": [\n    { "id": "theirs" } // kept\n  ],\n  "servers": {}\n}\n'
    after = with_server(text, host, STARTED.entry(host))

    assert [one["id"] for one in json_value(after)["inputs"]] == ["theirs", "rlm-key"]
    assert json_value(after)["servers"]["rlm"]["env"][KEY] == "${input:rlm-key}"
    assert without_server(after, host) == text


def test_a_path_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'a' is not a table"):
        json_with('{"a": 1}', ("a", "b"), 2)
    assert json_without('{"a": 1, /* b, c */ "b": 2}', ("b",)) == '{"a": 1 /* b, c */ }'


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("+  GITHUB_TOKEN: ghp_123  # mine", '+  GITHUB_TOKEN: "***"# mine'),
        ('   API_KEY: "abc"', '   API_KEY: "***"'),
        ("   env_keys: []", "   env_keys: []"),
        ("   keys:", "   keys:"),
        ("   password: 'it'", '   password: "***"'),
    ],
)
def test_secrets_of_yaml_are_hidden_too(line: str, shown: str) -> None:
    assert hide_secrets(line) == shown


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_host_has_a_file_on_every_platform(
    platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", platform)
    for name, host in HOSTS.items():
        assert host.file().is_absolute(), name


def test_the_file_that_a_host_uses_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("XDG_CONFIG_HOME", "CLINE_DIR", "CLINE_DATA_DIR", "CONTINUE_GLOBAL_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    opencode = tmp_path / ".config/opencode/opencode.jsonc"
    older = (
        tmp_path / ".config/Code/User/globalStorage/saoudrizwan.claude-dev/settings"
        "/cline_mcp_settings.json"
    )
    studio = tmp_path / "models"
    for path in (opencode, older, studio / "mcp.json", tmp_path / ".continue/config.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{studio}\n")

    assert HOSTS["opencode"].file() == opencode
    assert HOSTS["cline"].file() == older
    assert HOSTS["lm-studio"].file() == studio / "mcp.json"
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        HOSTS["continue"].file()
    (tmp_path / ".cline/data/settings").mkdir(parents=True)
    newer = tmp_path / ".cline/data/settings/cline_mcp_settings.json"
    newer.touch()
    (tmp_path / ".continue/config.yaml").touch()
    assert HOSTS["cline"].file() == newer
    assert HOSTS["continue"].file().name == "config.yaml"
