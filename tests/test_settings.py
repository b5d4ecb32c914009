from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.errors import ConfigurationError
from rlm_mcp.settings import Settings, load_settings, unknown_variables


def test_without_any_setting_every_field_has_its_default() -> None:
    settings = load_settings()

    # A library says what it does; whoever asks a server wants the best answer.
    assert settings.config() == RLMConfig(direct_max_chars=32_000)
    assert settings.root_model is None
    assert settings.wait_seconds == 45
    assert settings.min_isolation == "partial"
    assert settings.max_concurrent_calls == 32
    assert settings.data_dir.name == "rlm-mcp"


@pytest.mark.parametrize("name", sorted(RLMConfig.model_fields))
def test_every_field_of_the_config_is_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "enable_sub_calls": "false",
        "prompt_variant": "small_context",
        "verbose": "true",
        "root_context_tokens": "100000",
        "temperature": "1",
        "sub_temperature": "1",
    }
    monkeypatch.setenv(f"RLM_MCP_{name.upper()}", values.get(name, "3"))

    config = load_settings().config()

    assert getattr(config, name) == getattr(
        RLMConfig.model_validate({name: values.get(name, "3")}), name
    )
    assert getattr(config, name) != getattr(RLMConfig(), name)


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rlm.toml"
    file.write_text("root_model = 'from-file'\nsub_model = 'from-file'\nallowed_paths = ['/srv']\n")
    monkeypatch.setenv("RLM_MCP_ROOT_MODEL", "from-environment")

    settings = load_settings(file)

    assert settings.root_model == "from-environment"
    assert settings.sub_model == "from-file"
    assert settings.allowed_paths == (Path("/srv"),)


def test_the_names_of_openai_serve_where_ours_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://theirs/v1")
    theirs = load_settings()
    monkeypatch.setenv("RLM_MCP_BASE_URL", "http://ours/v1")
    ours = load_settings()

    assert theirs.base_url == "http://theirs/v1"
    assert theirs.api_key is not None
    assert theirs.api_key.get_secret_value() == "theirs"
    assert ours.base_url == "http://ours/v1"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:11434/v1", "RLM_MCP_BASE_URL='127.0.0.1:11434/v1': it must begin with http://"),
        ("http://:80/v1", "RLM_MCP_BASE_URL='http://:80/v1': its host or port cannot be used"),
        ("http://host:port/v1", "its host or port cannot be used"),
        ("ftp://ann:canary@host", "RLM_MCP_BASE_URL='ftp://host': it must begin with http://"),
        ("ws://host/?key=canary", "RLM_MCP_BASE_URL='ws://host/': it must begin with http://"),
    ],
)
def test_an_address_that_is_none_is_refused_at_the_start(
    address: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_MCP_BASE_URL", address)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    monkeypatch.setenv("RLM_MCP_BASE_URL", "")
    monkeypatch.setenv("RLM_MCP_MODELS", json.dumps({"big": {"base_url": address}}))
    with pytest.raises(ConfigurationError) as of_table:
        load_settings()

    assert told in str(raised.value)
    assert "RLM_MCP_MODELS[big][base_url]: it" in str(of_table.value)
    assert "canary" not in f"{raised.value}{of_table.value}"


def test_an_address_or_key_of_openai_that_cannot_be_used_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "theirs/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "canary\u00e9")

    with pytest.raises(ConfigurationError) as raised:
        load_settings()

    assert "OPENAI_BASE_URL='theirs/v1': it must begin" in str(raised.value)
    assert "OPENAI_API_KEY: it contains invalid characters" in str(raised.value)
    assert "canary" not in str(raised.value)


def test_allowed_paths_are_separated_as_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MCP_ALLOWED_PATHS", "/srv/a:/srv/b")

    assert load_settings().allowed_paths == (Path("/srv/a"), Path("/srv/b"))


def test_a_value_out_of_range_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_MCP_MAX_ITERATIONS", "0")

    with pytest.raises(ConfigurationError, match=r"RLM_MCP_MAX_ITERATIONS='0': .*greater than"):
        load_settings()


def test_a_secret_is_not_shown_when_it_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "rlm.toml"
    file.write_text("api_key = ['canary-key']\n")

    with pytest.raises(ConfigurationError) as raised:
        load_settings(file)

    assert "API_KEY" in str(raised.value)
    assert "canary-key" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rot_model", "ROT_MODEL is not a setting; did you mean RLM_MCP_ROOT_MODEL"),
        ("ROOT_MODEL", "ROOT_MODEL is not a setting; write it in lower case, as root_model"),
    ],
)
def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path, name: str, told: str) -> None:
    file = tmp_path / "rlm.toml"
    file.write_text(f"{name} = 'x'\n")

    with pytest.raises(ConfigurationError, match=told):
        load_settings(file)


@pytest.mark.parametrize("text", ["root_model = ", "root_model = '\\xff"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rlm.toml"
    file.write_text(text)

    with pytest.raises(ConfigurationError, match=r"rlm\.toml.* is not TOML"):
        load_settings(file)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.toml.* cannot be read"):
        load_settings(tmp_path / "missing.toml")


def test_a_misspelt_variable_is_told_with_the_nearest_setting() -> None:
    told = unknown_variables({"RLM_MCP_ROOT_MODLE": "x", "RLM_MCP_SUB_MODEL": "y", "HOME": "/"})

    assert told == ["RLM_MCP_ROOT_MODLE is not a setting; did you mean RLM_MCP_ROOT_MODEL?"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            "root_modle = 'x'",
            "RLM_MCP_ROOT_MODLE is not a setting; did you mean RLM_MCP_ROOT_MODEL?",
        ),
        (
            "[models.Big]\nmodle = 'x'",
            "RLM_MCP_MODELS[Big][modle] is not a field of a model's table; did you mean model?",
        ),
        ("models = 'x'", "RLM_MCP_MODELS: it is not JSON: "),
        ("daily_usd = 'ann=much'", "RLM_MCP_DAILY_USD[ann]='much': input should be a valid number"),
        ("ray_address = 'x'", "RLM_MCP_RAY_ADDRESS='x': it must be HOST:PORT, such as "),
        ("docker_image = '-x'", "RLM_MCP_DOCKER_IMAGE='-x': it must be the name of an image, "),
        ("oauth_issuer = 'x'", "RLM_MCP_OAUTH_ISSUER='x': it must begin with https://"),
    ],
)
def test_a_setting_that_is_wrong_is_named_with_what_it_must_be(
    tmp_path: Path, lines: str, told: str
) -> None:
    file = tmp_path / "rlm.toml"
    file.write_text(lines)

    with pytest.raises(ConfigurationError) as raised:
        load_settings(file)

    assert f"These settings cannot be used: {told}" in str(raised.value)
    assert "?." not in str(raised.value)


@pytest.mark.parametrize(
    "tables", ['{"a": {"headers": {"key": "canary-0123456789"}},}', '["canary-0123456789"]']
)
def test_tables_of_models_that_cannot_be_read_are_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tables: str
) -> None:
    monkeypatch.setenv("RLM_MCP_MODELS", tables)

    with pytest.raises(ConfigurationError, match="RLM_MCP_MODELS") as raised:
        load_settings()

    assert "canary" not in str(raised.value)


def test_tokens_of_several_users_come_from_a_line_or_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rlm.toml"
    file.write_text('[http_tokens]\nann = "a-token-of-ann-123"\n')
    in_table = load_settings(file).http_tokens
    monkeypatch.setenv("RLM_MCP_HTTP_TOKENS", "ann=a-token-of-ann-123, bob=a-token-of-bob==,")
    in_line = load_settings(file).http_tokens

    assert {name: token.get_secret_value() for name, token in in_table.items()} == {
        "ann": "a-token-of-ann-123"
    }
    assert {name: token.get_secret_value() for name, token in in_line.items()} == {
        "ann": "a-token-of-ann-123",
        "bob": "a-token-of-bob==",
    }


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("HTTP_TOKEN", "canary-short", "at least 16"),
        ("HTTP_TOKEN", "canary with spaces in it", "letters"),
        ("HTTP_TOKENS", "ann=canary-0123456789,ann=canary-9876543210", "twice"),
        ("HTTP_TOKENS", "ann=canary-0123456789,bob=canary-0123456789", "same token"),
        ("HTTP_TOKENS", "ann=canary-single-token", "same token"),
        ("HTTP_TOKENS", "canary-0123456789", "name=token,name=token"),
        ("HTTP_TOKENS", "ann=canary-short", "at least 16"),
        ("HTTP_TOKENS", "an n=canary-0123456789", "a name has"),
        ("HTTP_TOKENS", "=canary-0123456789", "a name has"),
    ],
)
def test_a_token_that_cannot_tell_its_user_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv("RLM_MCP_HTTP_TOKEN", "canary-single-token")
    monkeypatch.setenv(f"RLM_MCP_{variable}", value)

    with pytest.raises(ConfigurationError, match=f"RLM_MCP_{variable}.*{told}") as raised:
        load_settings()

    assert "canary" not in str(raised.value)


PASSWORD = "pass-word-0123"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_no_setting_that_is_refused_is_quoted_with_a_password(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"RLM_MCP_{name.upper()}", f"ftp://ann:{PASSWORD}@host.example/x?y#z")
    refused = ""
    try:
        load_settings()
    except ConfigurationError as error:
        refused = str(error)
    assert PASSWORD not in refused
    assert not refused or f"RLM_MCP_{name.upper()}" in refused


@pytest.mark.parametrize("name", ["OAUTH_ISSUER", "OAUTH_RESOURCE"])
def test_an_address_that_clients_are_told_holds_no_password(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"RLM_MCP_{name}", f"https://ann:{PASSWORD}@issuer.example")
    with pytest.raises(
        ConfigurationError, match=r"must not contain a user name or password"
    ) as refused:
        load_settings()
    assert f"RLM_MCP_{name}='https://issuer.example'" in str(refused.value)


def test_the_address_of_keys_may_have_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://ann:{PASSWORD}@127.0.0.1:9/keys"
    monkeypatch.setenv("RLM_MCP_OAUTH_JWKS_URL", address)
    assert load_settings().oauth_jwks_url == address
