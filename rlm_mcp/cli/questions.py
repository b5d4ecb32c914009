"""The work of `rlm-mcp query`, and of `runs` where a run is awaited."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rlm_mcp.cli.commands.options import Launch
from rlm_mcp.cli.display import Verbosity, open_run_display, show_outcome
from rlm_mcp.cli.failures import NO_ANSWER, print_error, report_continuing
from rlm_mcp.cli.output import say
from rlm_mcp.cli.sources import add_source
from rlm_mcp.cli.terminal import messages, print_json
from rlm_mcp.cli.wording import error_line
from rlm_mcp.errors import InvalidInputError
from rlm_mcp.server.run_results import citation_lines
from rlm_mcp.server.views import run_view
from rlm_mcp.service.contexts.requests import NewText
from rlm_mcp.service.opening import open_service
from rlm_mcp.service.runs.estimating import Estimate
from rlm_mcp.service.runs.questions import Question, more_room
from rlm_mcp.service.runs.runs import RunState
from rlm_mcp.service.service import Service


@dataclass
class RunDisplay:
    """How to show a run; `run_id` is set once the run exists."""

    verbosity: Verbosity
    as_json: bool
    run_id: str = ""

    def finish(self, state: RunState) -> None:
        """Print the answer, and end the command with the code that says whether there is one."""
        if self.as_json:
            print_json(run_view(state))
        elif state.answer is not None:
            say(state.answer)
            if self.verbosity != "nothing":
                for line in citation_lines(run_view(state)):
                    say(line, err=True)
        elif state.status == "running":
            say(state.run_id)
            if self.verbosity != "nothing":
                report_continuing(state.run_id)
        if state.error and not self.as_json:
            print_error(error_line(state.error))
            if state.status == "exhausted" and self.verbosity != "nothing":
                say(_way_on(state), err=True)
        if state.status != "running" and state.answer is None:
            raise SystemExit(NO_ANSWER)


def _way_on(state: RunState) -> str:
    room = more_room(state)
    limits = [f" --{name.replace('_', '-')} {room[name]:g}" for name in room]
    return f"Resume it with more room: rlm-mcp runs resume {state.run_id}{''.join(limits)}"


async def add_sources(
    launch: Launch, sources: Sequence[str], verbosity: Verbosity
) -> tuple[str, ...]:
    """Store texts, and return their handles.

    Raises:
        RLMError: one cannot be read or stored.
    """
    async with open_service(launch.settings, named=sources, purpose=launch.to_look) as service:
        is_shown = verbosity != "nothing"
        added = [
            await add_source(service, NewText(path=source), is_shown=is_shown) for source in sources
        ]
    return tuple(str(one.handle) for one in added)


async def ask(launch: Launch, question: Question, display: RunDisplay) -> RunState:
    """Work on a question until it ends.

    Raises:
        RLMError: what was asked cannot be used.
    """
    async with open_service(launch.settings) as service:
        display.run_id = (await service.runs.begin(question)).run_id
        return await _follow(service, display, math.inf)


async def estimate(launch: Launch, question: Question) -> Estimate:
    """Say what a question would cost; no model is asked.

    Raises:
        RLMError: what was asked cannot be used.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        return await service.runs.estimate(question)


async def resume_run(launch: Launch, display: RunDisplay, limits: Mapping[str, Any]) -> RunState:
    """Resume a run, and work on it until it ends again.

    Raises:
        RLMError: it cannot be resumed, or not within these limits.
    """
    async with open_service(launch.settings) as service:
        await service.runs.resume(display.run_id, limits)
        return await _follow(service, display, math.inf)


async def watch(launch: Launch, display: RunDisplay, seconds: float) -> RunState:
    """Show a run, whoever works on it, until it ends or for so many seconds.

    Raises:
        NotFoundError: there is no such run.
    """
    async with open_service(launch.settings, purpose=launch.to_look) as service:
        return await _follow(service, display, seconds)


async def _follow(service: Service, display: RunDisplay, seconds: float) -> RunState:
    console = messages()
    async with open_run_display(service.runs, console, display.verbosity) as report:
        state = await service.runs.wait(display.run_id, seconds, report)
    if display.verbosity != "nothing":
        show_outcome(console, state)
    return state


def read_options(given: Sequence[str]) -> dict[str, str]:
    """Read options written as `NAME=VALUE`; values are checked when the run is made.

    Raises:
        InvalidInputError: one is written in another way, or given twice.
    """
    options: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InvalidInputError(
                f"The option {pair!r} has no value.", fix="Write it as NAME=VALUE."
            )
        name = name.strip().replace("-", "_")
        if name in options:
            raise InvalidInputError(
                f"The option {name!r} is given twice, as {options[name]!r} and as {value!r}.",
                fix="Give it once.",
            )
        options[name] = value
    return options


def read_schema(path: Path) -> Mapping[str, Any]:
    """Read a JSON Schema from a file.

    Raises:
        InvalidInputError: it cannot be read, or is not a JSON object.
    """
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"The schema {str(path)!r} cannot be read: {error}.",
            fix="Give a file with a JSON Schema in it.",
        ) from error
    if not isinstance(schema, dict):
        raise InvalidInputError(
            f"The schema {str(path)!r} is not a JSON object.",
            fix='Begin with {"type": "object", …}.',
        )
    return cast("dict[str, Any]", schema)
