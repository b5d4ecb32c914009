"""Programs that are known to answer as models, and how each is called for one reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlm_mcp.engine.models.commands.output import Form
from rlm_mcp.errors import ConfigurationError

COMMAND_SECONDS = 600.0
# What `codex` has of its own, as its features are called; those that it does not know it passes by.
_OF_CODEX = (
    *("shell_tool", "unified_exec", "multi_agent", "goals", "apps", "plugins", "hooks"),
    *("image_generation", "memories"),
)
_NO_TOOLS = Path(__file__).with_name("no_tools.toml")  # a policy that denies `gemini` every tool


@dataclass(frozen=True)
class Preset:
    """How a known program is called for one reply, without anything of its own.

    Args:
        argv: the call; the prompt goes to its standard input.
        model_option: the option that names a model.
        system_option: the option that takes the system prompt; empty where it goes into the prompt.
        login: how a person logs in.
        status: arguments with which the program exits with 0 if somebody is logged in.
        tells_cost: whether its output says what a reply cost.
        form: of its output.
        environment: what it gets beside the environment of all commands.
    """

    argv: tuple[str, ...]
    model_option: str
    system_option: str = ""
    login: str = ""
    status: tuple[str, ...] = ()
    tells_cost: bool = False
    form: Form = "any"
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


PRESETS: Mapping[str, Preset] = {
    "claude": Preset(
        (
            *("claude", "-p", "--output-format", "json", "--tools", ""),
            *("--strict-mcp-config", "--setting-sources", "", "--disable-slash-commands"),
            "--no-session-persistence",
        ),
        "--model",
        "--system-prompt",
        "claude auth login",
        ("auth", "status"),
        tells_cost=True,
        form="claude",
    ),
    "codex": Preset(
        (
            *("codex", "exec", "--skip-git-repo-check", "--sandbox", "read-only", "--ephemeral"),
            *("--ignore-user-config", "--ignore-rules", "--json"),
            *(part for one in _OF_CODEX for part in ("-c", f"features.{one}=false")),
            *("-c", 'web_search="disabled"', "-c", "project_doc_max_bytes=0", "-"),
        ),
        "--model",
        login="codex login",
        status=("login", "status"),
        form="codex",
    ),
    "gemini": Preset(
        (
            *("gemini", "--output-format", "json", "--extensions", "none"),
            *("--allowed-mcp-server-names", "none", "--policy", str(_NO_TOOLS)),
        ),
        "--model",
        login="gemini",
        form="gemini",
        # It refuses to work in a directory that nobody has trusted, as each new one is.
        environment={"GEMINI_CLI_TRUST_WORKSPACE": "true"},
    ),
    "llm": Preset(
        ("llm", "prompt", "--no-stream", "--no-log", "--usage"),
        "-m",
        "-s",
        login="llm keys set openai",
        form="llm",
    ),
}


@dataclass(frozen=True)
class Command:
    """What is run.

    Args:
        argv: the program and its arguments.
        environment: all that the program gets of the environment.
        system_option: the option that takes the system prompt, if there is one.
        seconds: how long one reply may take.
        form: of its output.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    system_option: str = ""
    seconds: float = COMMAND_SECONDS
    form: Form = "any"


def preset_command(name: str, model: str, environment: Mapping[str, str]) -> Command:
    """Make the command of a preset.

    Raises:
        ConfigurationError: there is no such preset.
    """
    preset = PRESETS.get(name)
    if preset is None:
        known = ", ".join(f"command:{one}" for one in PRESETS)
        raise ConfigurationError(
            f"There is no command preset {name!r}.",
            fix=f"Use one of {known}, or give argv as `command` in a [models.NAME] table.",
        )
    first, *rest = preset.argv
    named = (preset.model_option, model) if model else ()
    at = 1 if name in {"codex", "llm"} else 0  # behind the name of the subcommand
    argv = (first, *rest[:at], *named, *rest[at:])
    variables = {**environment, **preset.environment}
    return Command(argv, variables, preset.system_option, form=preset.form)
