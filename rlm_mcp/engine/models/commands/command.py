"""A model that is a command: the prompt goes to standard input, the reply comes from the output.

So a subscription that a person already has can answer, through the program it came with. The
command gets no tools, no servers and no settings of its own where a preset can switch them off, an
empty directory to work in, and an end in time; a cancelled call kills it and its children.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from rlm_mcp.engine.models.chat import ChatReply, ChatRequest
from rlm_mcp.engine.models.commands.output import QUOTED_CHARS, problem_in, read_output
from rlm_mcp.engine.models.commands.presets import Command
from rlm_mcp.errors import ConfigurationError, ModelConnectionError

CALLS_AT_ONCE = 4
MAX_OUTPUT_BYTES = 32 << 20
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
MAX_SYSTEM_CHARS = 100_000  # one argument of a command holds 128 KiB


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
            ModelReplyError: its output is not a reply.
        """
        async with self._limiter:
            directory = await anyio.to_thread.run_sync(tempfile.mkdtemp, None, "rlm-command-")
            try:
                output, complaints = await self._run(request, directory)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(shutil.rmtree, directory, True)
        reply = read_output(output, request.chars, self._command.form, complaints)
        if request.on_delta is not None:
            await request.on_delta(reply.text)
        return reply

    async def _run(self, request: ChatRequest, directory: str) -> tuple[str, str]:
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

    async def _converse(self, process: Process, prompt: str) -> tuple[str, str]:
        printed, complaints = bytearray(), bytearray()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, process.stdout, printed)
            tasks.start_soon(_read, process.stderr, complaints)
            tasks.start_soon(_write, process.stdin, prompt)
        code = await process.wait()
        output, said = printed.decode("utf-8", "replace"), complaints.decode("utf-8", "replace")
        if code != 0:
            form = self._command.form
            words = problem_in(output, form) or problem_in(said, form) or _last_line(said)
            raise ModelConnectionError(
                f"The command of {self._name!r} ended with exit code {code}: "
                f"{self._without_secrets(words)}",
                fix="Try the command by hand; it may need a login.",
            )
        return output, said

    def _without_secrets(self, text: str) -> str:
        """Take out of a text every value of the command's environment that may be a secret."""
        for name, value in self._command.environment.items():
            if len(value) >= 8 and any(word in name.upper() for word in _SECRET_WORDS):
                text = text.replace(value, "***")
        return text[:QUOTED_CHARS]


_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")


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


def _last_line(text: str) -> str:
    lines = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]
    return lines[-1] if lines else "it printed no reason."
