"""The only reader of the environment and of the configuration file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import platformdirs
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator

from rlm_mcp import bearer_tokens
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.daily_limits import DailyLimits
from rlm_mcp.engine.models.tables import ANTHROPIC_KEY, Address, Key, ModelTable, with_good_names
from rlm_mcp.errors import ConfigurationError
from rlm_mcp.refused_settings import PREFIX, problem_of, unknown_names
from rlm_mcp.settings_file import read_toml
from rlm_mcp.values import DOCKER_IMAGE, IsolationLevel, SandboxName

# Names that other programs use for the same thing; ours win.
ALSO = {"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY"}
# What a command that answers as a model does not get: our own settings, and the marks of a host
# that runs this server, which would take the command for one started inside of itself.
_NOT_FOR_COMMANDS = ("RLM_MCP_", "CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT")


class Settings(RLMConfig, DailyLimits):
    """What an operator sets: where things are, what may be reached, and defaults of every run.

    Each field is read from `RLM_MCP_<FIELD>` in the environment, else from the configuration file.
    """

    base_url: Address | None = Field(
        default=None,
        description="Root of an OpenAI-compatible API, such as http://127.0.0.1:11434/v1.",
    )
    api_key: Key | None = Field(
        default=None, description="Key of that API; local servers need none."
    )
    root_model: str | None = Field(default=None, description="Model that writes the code.")
    sub_model: str | None = Field(
        default=None, description="Model that answers sub-calls; by default the root model."
    )
    models: dict[str, ModelTable] = Field(
        default_factory=dict[str, ModelTable],
        description="Further models by name: `[models.NAME]` tables of the file; in the "
        "environment, the same as JSON.",
    )
    allowed_models: tuple[str, ...] | None = Field(
        default=None,
        description="Models that a caller may choose, separated by commas; by default every "
        "table and every model of the endpoint.",
    )
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("rlm-mcp", appauthor=False)),
        description="Directory of the database; by default the platform's data directory.",
    )
    allowed_paths: tuple[Path, ...] | None = Field(
        default=None,
        description="Directories that `path` may read, separated as in PATH; by default the "
        "working directory and the home directory without hidden entries.",
    )
    wait_seconds: float = Field(
        default=45,
        ge=0,
        le=3600,
        description="Maximum seconds that a call waits for its run; where this is not set, longer "
        "or shorter for callers with a limit of their own.",
    )
    cancel_grace_seconds: float = Field(
        default=60,
        ge=0,
        le=86_400,
        description="Seconds between the client cancelling a request and the cancel of its run; "
        "any request about the run in between keeps it; 0: never cancelled.",
    )
    sandbox: SandboxName = Field(
        default="auto",
        description="Where model-written code runs: `native` behind the kernel's walls, `portable` "
        "in WebAssembly, `docker` in containers; `auto` takes the native walls where they hold, "
        "else the portable one.",
    )
    docker_image: str = Field(
        default=DOCKER_IMAGE,
        min_length=1,
        pattern=r"^[^-\s]\S*$",  # it stands on a command line, after options
        description="Image of the `docker` sandbox, with Python 3.11 or later; it must have been "
        "pulled.",
    )
    min_isolation: IsolationLevel = Field(
        default="partial", description="Weakest isolation in which model-written code may run."
    )
    direct_max_chars: int = Field(
        default=32_000,  # some 8,000 tokens, in a dense script 16,000: half of a window of 32,000
        ge=0,
        description="Texts of up to this many characters are put whole into the first message; "
        "0: never.",
    )
    max_concurrent_runs: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Runs at work at the same time, the others wait in a queue; by default "
        "computed from cores and memory.",
    )
    ray_address: str | None = Field(
        default=None,
        pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s:/@]+):\d{1,5}$",
        description="HOST:PORT of the Ray cluster that works on runs; by default this process.",
    )
    worker_runs: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Runs at work at the same time at one worker of that cluster; by default as "
        "many as max_concurrent_runs says, or by the node's cores and memory.",
    )
    keep_runs_days: float = Field(
        default=90,
        ge=0,
        description="Days for which ended runs and replies of sub-calls are kept; 0: forever.",
    )
    keep_runs_mb: int = Field(
        default=4000,
        ge=0,
        description="Megabytes that runs and replies may take; the oldest ones of the user with "
        "the most are deleted first; 0: no limit.",
    )
    keep_uploads_hours: float = Field(
        default=24,
        gt=0,
        description="Hours for which a text sent in parts waits for its next part.",
    )
    text_cache_dir: Path | None = Field(
        default=None,
        description="Directory of large texts as files; by default `texts` in the data directory.",
    )
    text_cache_mb: int | None = Field(
        default=None,
        ge=0,
        description="Megabytes that these files may take; the oldest ones of the user with the "
        "most are deleted first; 0: no files; by default 20,000, at most a fifth of the disk.",
    )
    ui: bool = Field(
        default=False,
        description="Whether a server over stdio also serves the page, on this machine only.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Form of the log on stderr: `text`, or `json` for JSON lines."
    )
    max_file_bytes: int = Field(
        default=256_000_000,
        ge=0,
        description="Largest file that a directory or glob may contribute; 0: no limit.",
    )
    max_upload_bytes: int = Field(
        default=10 << 30, ge=1, description="Largest text that may be sent over HTTP."
    )
    http_token: SecretStr | None = Field(
        default=None, description="Bearer token of the HTTP server, for a single user."
    )
    http_tokens: dict[str, SecretStr] = Field(
        default_factory=dict[str, SecretStr],
        description="Bearer tokens of several users, as name=token,name=token; each sees only "
        "their own texts and runs.",
    )
    oauth_issuer: str | None = Field(
        default=None, description="Authorization server whose access tokens are accepted over HTTP."
    )
    oauth_resource: str | None = Field(
        default=None, description="This server's public MCP URL, which those tokens must name."
    )
    oauth_jwks_url: str | None = Field(
        default=None, description="URL of the authorization server's public keys."
    )

    @field_validator("oauth_issuer", "oauth_resource", "oauth_jwks_url", mode="after")
    @classmethod
    def _check_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value:
            # Clients see the other two; only where the keys are may need a password.
            bearer_tokens.refuse_bad_url(
                value, may_hold_password=info.field_name == "oauth_jwks_url"
            )
        return value

    @field_validator("http_token", mode="after")
    @classmethod
    def _check_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            bearer_tokens.refuse_weak(value)
        return value

    @field_validator("http_tokens", mode="before")
    @classmethod
    def _split_tokens(cls, value: object) -> object:
        return bearer_tokens.tokens_by_name(value) if isinstance(value, str) else value

    @field_validator("http_tokens", mode="after")
    @classmethod
    def _check_tokens(
        cls, value: dict[str, SecretStr], info: ValidationInfo
    ) -> dict[str, SecretStr]:
        single: SecretStr | None = info.data.get("http_token")
        bearer_tokens.refuse_bad_tokens(value, [single] if single else [])
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _read_models(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            raise ValueError(f"it is not JSON: {error}") from error

    _check_models = field_validator("models", mode="after")(with_good_names)

    @field_validator("allowed_models", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_paths", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part).expanduser() for part in value.split(os.pathsep) if part)
        return value

    @field_validator("data_dir", "text_cache_dir", mode="after")
    @classmethod
    def _expand_home(cls, value: Path | None) -> Path | None:
        return value and value.expanduser()

    def config(self) -> RLMConfig:
        """The part that a run takes as its `RLMConfig`."""
        return RLMConfig(**{name: getattr(self, name) for name in RLMConfig.model_fields})


def load_settings(
    config_file: Path | None = None, given: Mapping[str, Any] | None = None
) -> Settings:
    """Read the environment and, below it, a TOML file with the same names in lower case.

    What is `given` holds whatever they say.

    Raises:
        ConfigurationError: the file cannot be read, or a value does not fit; names each.
    """
    values = read_toml(config_file) if config_file else {}
    try:
        return Settings.model_validate(values | _read_variables(os.environ) | dict(given or {}))
    except ValidationError as error:
        known = Settings.model_fields
        shown = {name for name in known if not _is_secret(name)}
        found = error.errors(include_url=False)
        problems = "; ".join(problem_of(one, shown, known, _names_used()) for one in found)
        # No cause is chained: pydantic's own text could show the value of a secret.
        raise ConfigurationError(
            f"These settings cannot be used: {problems}{'' if problems.endswith('?') else '.'}",
            fix="Correct them in the environment or in the file given by --config.",
        ) from None


def as_variables(settings: Settings) -> dict[str, str]:
    """Give what was set as environment variables that set the same; secrets are left out."""
    open_fields = {name for name in settings.model_fields_set if not _is_secret(name)}
    given = settings.model_dump(mode="json", include=open_fields, exclude_none=True)
    return {PREFIX + field.upper(): _as_text(value) for field, value in given.items()}


def keys_of_models(settings: Settings) -> dict[str, str]:
    """Return the keys that the tables of models name, by environment variable.

    Raises:
        ConfigurationError: a variable is not set.
    """
    named = {table.api_key_env: name for name, table in settings.models.items()}
    keys = {variable: os.environ.get(variable, "") for variable in named if variable}
    usual = {ANTHROPIC_KEY: os.environ.get(ANTHROPIC_KEY, "")}  # for tables that name no variable
    for variable, key in keys.items():
        if not key:
            raise ConfigurationError(
                f"The variable {variable!r} is not set; [models.{named[variable]}] names it.",
                fix="Set it in the environment to the key, or remove api_key_env.",
            )
    return {**usual, **keys}


def environment_of_commands() -> dict[str, str]:
    """Return what commands that answer as models get of the environment."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_COMMANDS)
    }


def variables_in_force() -> set[str]:
    """Name the settings (as our variables) that the environment sets, whoever's name is used."""
    return {PREFIX + field.upper() for field in _read_variables(os.environ)}


def is_ray_token_required() -> bool:
    """Whether Ray refuses whoever has not its token, as RAY_AUTH_MODE says."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def application_directory(name: str) -> Path:
    """Where another program keeps what its user configures."""
    return platformdirs.user_config_path(name, appauthor=False, roaming=True)


def directory_named_by(variable: str, otherwise: Path) -> Path:
    """The directory that a variable of another program names, or the usual one."""
    return Path(os.environ.get(variable) or otherwise).expanduser()


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Describe variables that carry our prefix but name no setting, with the nearest that does."""
    ours = sorted(name for name in environ if name.startswith(PREFIX))
    return list(unknown_names(ours, Settings.model_fields))


def _read_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that are set and not empty, by field; pydantic reads their text."""
    values: dict[str, str] = {}
    for field in Settings.model_fields:
        value = environ.get(PREFIX + field.upper()) or environ.get(ALSO.get(field, ""))
        if value:
            values[field] = value
    return values


def _names_used() -> dict[str, str]:
    """The variables of other programs that set a field in place of ours."""
    return {
        field: also
        for field, also in ALSO.items()
        if os.environ.get(also) and not os.environ.get(PREFIX + field.upper())
    }


def _is_secret(field: str) -> bool:
    # A table of a model may hold a key in its headers.
    return field == "models" or "Secret" in str(Settings.model_fields[field].annotation)


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return os.pathsep.join(map(str, cast("list[object]", value)))
    if isinstance(value, dict):
        return ",".join(f"{name}={one}" for name, one in cast("dict[str, object]", value).items())
    return str(value).lower() if isinstance(value, bool) else str(value)
