"""A model that is a command: the prompt goes to standard input, the reply comes from the output.

So a subscription that a person already has can answer, through the program it came with. The
command gets no tools, no servers and no settings of its own where a preset can switch them off, an
empty directory to work in, and an end in time; a cancelled call kills it and its children.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.metering import estimate_tokens
from rlm_mcp.errors import ConfigurationError, ModelConnectionError, ModelReplyError

COMMAND_SECONDS = 600.0
STATUS_SECONDS = 5.0
CALLS_AT_ONCE = 4
MAX_OUTPUT_BYTES = 32 << 20
MAX_SYSTEM_CHARS = 100_000  # one argument of a command holds 128 KiB
_QUOTED_CHARS = 500


@dataclass(frozen=True)
class Preset:
    """How a known program is called for one reply, without anything of its own.

    Args:
        argv: the call; the prompt goes to its standard input.
        model_option: the option that names a model.
        system_option: the option that takes the system prompt; empty where it goes into the prompt.
        login: how a person logs in.
        status: arguments with which the program exits with 0 if somebody is logged in.
    """

    argv: tuple[str, ...]
    model_option: str
    system_option: str = ""
    login: str = ""
    status: tuple[str, ...] = ()


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
    ),
    "codex": Preset(
        (
            *("codex", "exec", "--skip-git-repo-check", "--sandbox", "read-only", "--ephemeral"),
            *("--ignore-user-config", "--ignore-rules", "--color", "never", "-"),
        ),
        "--model",
        login="codex login",
        status=("login", "status"),
    ),
    "gemini": Preset(
        (
            *("gemini", "--output-format", "json", "--extensions", "none"),
            *("--allowed-mcp-server-names", "none"),
        ),
        "--model",
        login="gemini",
    ),
    "llm": Preset(("llm", "prompt", "--no-stream", "--no-log"), "-m", "-s", "llm keys set openai"),
}


@dataclass(frozen=True)
class Command:
    """What is run.

    Args:
        argv: the program and its arguments.
        environment: all that the program gets of the environment.
        system_option: the option that takes the system prompt, if there is one.
        seconds: how long one reply may take.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    system_option: str = ""
    seconds: float = COMMAND_SECONDS


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
    return Command(argv, environment, preset.system_option)


@dataclass(frozen=True)
class FoundCommand:
    """A preset whose program is installed; `is_logged_in` is None where it cannot be told."""

    name: str
    is_logged_in: bool | None

    def __str__(self) -> str:
        if self.is_logged_in is None:
            return self.name
        login = PRESETS[self.name].login
        return f"{self.name} (logged in)" if self.is_logged_in else f"{self.name} (run: {login})"


async def find_commands(environment: Mapping[str, str]) -> list[FoundCommand]:
    """Look for the programs of the presets, and ask each if somebody is logged in; nothing is paid.

    Args:
        environment: what they get of the environment.
    """
    found: list[FoundCommand] = []
    for name, preset in PRESETS.items():
        which = partial(shutil.which, preset.argv[0], path=environment.get("PATH"))
        program = await anyio.to_thread.run_sync(which)
        if program is not None:
            is_in = await _exits_well((program, *preset.status), environment)
            found.append(FoundCommand(name, is_in if preset.status else None))
    return found


async def _exits_well(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    with anyio.move_on_after(STATUS_SECONDS), suppress(OSError):
        done = await anyio.run_process(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode == 0
    return False


class CommandModel:
    """A `ChatModel` that runs a command for each reply.

    Args:
        name: of the model, for errors.
        command: what is run.
        limiter: how many run at once.
    """

    def __init__(self, name: str, command: Command, limiter: anyio.CapacityLimiter) -> None:
        self._name = name
        self._command = command
        self._limiter = limiter

    async def check(self) -> None:
        """See that the program is there; it is not run, so that nothing is paid.

        Raises:
            ModelConnectionError: it is not.
        """
        program, path = self._command.argv[0], self._command.environment.get("PATH")
        if await anyio.to_thread.run_sync(partial(shutil.which, program, path=path)) is None:
            raise ModelConnectionError(
                f"There is no program {program!r} for the model {self._name!r}.",
                fix="Install it, or set RLM_MCP_ROOT_MODEL to another model.",
            )

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Run the command once.

        Raises:
            ConfigurationError: there is no such program.
            ModelConnectionError: it took too long, or ended with an error.
            ModelReplyError: its output is no reply.
        """
        async with self._limiter:
            directory = await anyio.to_thread.run_sync(tempfile.mkdtemp, None, "rlm-command-")
            try:
                output = await self._run(request, directory)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(shutil.rmtree, directory, True)
        reply = read_output(output, request.chars)
        if request.on_delta is not None:
            await request.on_delta(reply.text)
        return reply

    async def _run(self, request: ChatRequest, directory: str) -> str:
        argv, prompt = _call(self._command, request)
        try:
            with anyio.fail_after(self._command.seconds):
                process = await self._start(argv, directory)
                try:
                    return await self._converse(process, prompt)
                finally:
                    await _end(process)
        except TimeoutError:
            raise ModelConnectionError(
                f"The command of {self._name!r} gave no reply in {self._command.seconds:.0f} s.",
                fix="Try the command by hand; it may wait for a login.",
            ) from None

    async def _start(self, argv: Sequence[str], directory: str) -> Process:
        try:
            return await anyio.open_process(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=directory,
                env=self._command.environment,
                start_new_session=True,  # so that its children can be killed with it
            )
        except OSError as error:
            raise ConfigurationError(
                f"The command {argv[0]!r} of the model {self._name!r} cannot be run: "
                f"{error.strerror}.",
                fix="Install it, or set RLM_MCP_ROOT_MODEL to another model.",
            ) from error

    async def _converse(self, process: Process, prompt: str) -> str:
        printed, complaints = bytearray(), bytearray()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process.stdout, printed)
            tasks.start_soon(_read, process.stderr, complaints)
            tasks.start_soon(_write, process.stdin, prompt)
        code = await process.wait()
        output = printed.decode("utf-8", "replace")
        if code != 0:
            words = _problem_in(output) or _last_line(complaints.decode("utf-8", "replace"))
            raise ModelConnectionError(
                f"The command of {self._name!r} ended with exit code {code}: "
                f"{self._without_secrets(words)}",
                fix="Try the command by hand; it may need a login.",
            )
        return output

    def _without_secrets(self, text: str) -> str:
        """Take out of a text every value of the command's environment that may be a secret."""
        for name, value in self._command.environment.items():
            if len(value) >= 8 and any(word in name.upper() for word in _SECRET_WORDS):
                text = text.replace(value, "***")
        return text[:_QUOTED_CHARS]


_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


def read_output(output: str, prompt_chars: int) -> ChatReply:
    """Read what a command printed: JSON with `result`, `usage` and `total_cost_usd`, or the reply.

    Raises:
        ModelReplyError: it is empty, or says that it is an error.
    """
    fields = _fields(output)
    text = next((fields[key] for key in ("result", "response") if key in fields), None)
    if fields.get("is_error"):
        raise ModelReplyError(f"The command reported an error: {str(text)[:_QUOTED_CHARS]}")
    if not isinstance(text, str):
        text = output.strip()
    if not text:
        raise ModelReplyError("The command printed nothing.", fix="Try it by hand.")
    told: object = fields.get("usage")
    usage = cast("Mapping[str, Any]", told if isinstance(told, dict) else {})
    fresh, made = _number(usage.get("input_tokens")), _number(usage.get("output_tokens"))
    cached = _number(usage.get("cache_read_input_tokens"))
    given = fresh + cached + _number(usage.get("cache_creation_input_tokens"))
    cost = fields.get("total_cost_usd")
    return ChatReply(
        text,
        input_tokens=given or estimate_tokens(prompt_chars),
        output_tokens=made or estimate_tokens(len(text)),
        usage_estimated=not (given and made),
        cached_input_tokens=cached,
        told_usd=float(cost) if isinstance(cost, (int, float)) else None,
    )


def _call(command: Command, request: ChatRequest) -> tuple[list[str], str]:
    """Return the arguments and what goes to standard input."""
    argv, messages = list(command.argv), list(request.messages)
    system = str(messages[0]["content"]) if messages and messages[0]["role"] == "system" else ""
    if command.system_option and system and len(system) <= MAX_SYSTEM_CHARS:
        argv += [command.system_option, system]
        messages = messages[1:]
    if len(messages) == 1:
        return argv, str(messages[0]["content"])
    names = {"system": "Instructions", "user": "User", "assistant": "You"}
    turns = [f"# {names[str(one['role'])]}\n\n{one['content']}" for one in messages]
    return argv, "\n\n".join([*turns, "# You\n\nWrite only your next reply."])


async def _read(stream: ByteReceiveStream | None, into: bytearray) -> None:
    if stream is not None:
        async for piece in stream:
            if len(into) <= MAX_OUTPUT_BYTES:
                into += piece


async def _write(stream: ByteSendStream | None, text: str) -> None:
    # A command that does not read to the end has its reason, and says it.
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        if stream is not None:
            await stream.send(text.encode("utf-8", "replace"))
            await stream.aclose()


async def _end(process: Process) -> None:
    """Kill what is left of a command, its children included, and close its pipes."""
    with anyio.CancelScope(shield=True):
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform != "win32":
                os.killpg(process.pid, signal.SIGKILL)
            elif process.returncode is None:
                process.kill()
        await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


def _fields(output: str) -> Mapping[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(output)
        if isinstance(found, dict):
            return cast("Mapping[str, Any]", found)
    return {}


def _problem_in(output: str) -> str:
    found = _fields(output)
    return str(found.get("result") or found.get("error") or "")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed no reason."


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
