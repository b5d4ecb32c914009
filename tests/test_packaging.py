"""What registries and hosts are told of this package is true, and says the same everywhere."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import rlm_mcp
from rlm_mcp.settings import PREFIX, Settings
from tests.serving import open_served, turns

ROOT = Path(__file__).parent.parent
SERVER = json.loads((ROOT / "server.json").read_text())
[PACKAGE] = SERVER["packages"]
MANIFEST = json.loads((ROOT / "packaging" / "mcpb" / "manifest.json").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version_stands_everywhere() -> None:
    told = {PROJECT["version"], SERVER["version"], PACKAGE["version"], MANIFEST["version"]}

    assert told == {rlm_mcp.__version__}


def test_the_registry_would_take_its_description_of_the_server() -> None:
    schema = files("skillsaw") / "schemas/mcp_registry/v2025_12_11/server.schema.json"
    rules = json.loads(schema.read_text())

    assert rules["$id"] == SERVER["$schema"]
    jsonschema.validate(SERVER, rules)
    assert len(SERVER["description"]) <= 100
    assert f"<!-- mcp-name: {SERVER['name']} -->" in (ROOT / "README.md").read_text()
    assert PACKAGE["identifier"] == PROJECT["name"]


@pytest.mark.parametrize("variable", PACKAGE["environmentVariables"], ids=lambda one: one["name"])
def test_a_variable_told_to_the_registry_is_a_setting_and_secret_where_that_is(
    variable: dict[str, Any],
) -> None:
    field = Settings.model_fields[variable["name"].removeprefix(PREFIX).lower()]
    is_secret = "Secret" in str(field.annotation)

    assert variable["description"] == field.description
    assert variable.get("isSecret", False) is is_secret
    if "default" in variable:
        default = field.default
        said = f"{default:g}" if isinstance(default, float) else str(default)
        assert variable["default"] == said


async def test_the_bundle_names_the_tools_that_are_served(tmp_path: Path) -> None:
    async with open_served(tmp_path, turns("never")) as served:
        tools = {tool.name for tool in (await served.client.list_tools()).tools}

    assert {tool["name"] for tool in MANIFEST["tools"]} == tools


def test_what_a_bundle_asks_its_user_for_reaches_the_server() -> None:
    asked = MANIFEST["user_config"]
    started = MANIFEST["server"]["mcp_config"]
    used = re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(started))
    sent = {name.removeprefix(PREFIX).lower() for name in started["env"]}

    assert (MANIFEST["manifest_version"], MANIFEST["server"]["type"]) == ("0.4", "uv")
    assert sorted(used) == sorted(asked)
    assert sent <= Settings.model_fields.keys()
    assert asked["api_key"]["sensitive"]
    assert asked["allowed_directories"]["multiple"]
    # A host leaves the name of what was not filled in where its value should be.
    assert all(option["required"] or "default" in option for option in asked.values())
    # Several directories can stand among the arguments alone.
    assert started["args"][-1] == "${user_config.allowed_directories}"
    assert (ROOT / "packaging" / "mcpb" / MANIFEST["server"]["entry_point"]).exists()


def test_types_are_shipped() -> None:
    assert (ROOT / "rlm_mcp" / "py.typed").exists()
