"""The parts of the documents that are made from the code; `python -m tests.reference` renews them.

A part stands in a document between `<!-- made: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import anyio
import click
from pydantic.fields import FieldInfo

from rlm_mcp import cli
from rlm_mcp.engine.config import RLMConfig
from rlm_mcp.engine.daily_limits import DailyLimits
from rlm_mcp.events import DETAILS
from rlm_mcp.settings import ALSO, PREFIX, Settings
from tests.surface import surface

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
)
_PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# Defaults that depend on the machine.
_DEFAULTS = {"data_dir": "the platform's data directory"}

# Of arguments whose schema says nothing, since it is sent to a model with every list of tools.
_MEANINGS = {
    "after_event": "Show what happened after the event of this number.",
    "budget.max_depth": "Depth of runs inside runs.",
    "budget.max_iterations": "Maximum turns of the root model.",
    "budget.max_seconds": "Maximum wall-clock seconds.",
    "budget.max_sub_calls": "Maximum sub-calls, inner runs included.",
    "budget.max_tokens": "Maximum tokens in and out, inner runs included.",
    "budget.max_usd": "Maximum cost in USD, inner runs included; needs prices.",
    "budget": "Limits of this run with everything it starts.",
    "code": "Python to run.",
    "context_lines": "Lines to show around each match.",
    "cursor": "`next_cursor` of the page before.",
    "document": "Number of the document, from 0.",
    "documents": "Texts that become the documents of one context.",
    "final": "False keeps the upload open for more parts.",
    "handle": "Handle of the text.",
    "handles": "Handles of the texts to search.",
    "idempotency_key": "Tells two runs of the same question apart.",
    "ignore_case": "Whether upper and lower case are the same.",
    "limit": "How many to return at most.",
    "literal": "Take `pattern` as it is, not as a regular expression.",
    "name": "Name to store the text under.",
    "question": "What to find out.",
    "root_model": "Model that writes the code, for this run.",
    "run_id": "The run.",
    "sha256": "SHA-256 that the text must have.",
    "start": "First character or line, from 0.",
    "status": "Show only runs with this status.",
    "sub_model": "Model that answers sub-calls, for this run.",
    "text": "The text itself.",
    "timeout_seconds": "Seconds that the code may run, waiting for sub-calls left out.",
    "unit": "What `start` and `limit` count.",
    "upload_id": "The upload that this part belongs to.",
    "wait_seconds": "How long this call waits for the run.",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [head, ["---"] * len(head), *([one.replace("|", "\\|") for one in row] for row in rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that is shown, with its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        elif command is not None and not command.hidden:
            yield f"{path} {name}", command


def tools_part(told: Mapping[str, Any]) -> str:
    """Every tool: what it does, its arguments, and the fields of its result."""
    return "\n".join(_tool(tool) for tool in told["tools"])


def _tool(tool: Mapping[str, Any]) -> str:
    wanted = tool["inputSchema"].get("required", ())
    rows = list(_arguments(tool["inputSchema"].get("properties", {}), wanted))
    arguments = table(("argument", "type", "meaning"), rows) if rows else "It takes no arguments.\n"
    result = tool["outputSchema"]
    fields = dict.fromkeys((*result["properties"], *result.get("required", ())))
    returned = ", ".join(f"`{name}`" for name in fields)
    rest = " and others" if result.get("additionalProperties") else ""
    return (
        f"### `{tool['name']}`\n\n**{tool['title']}.** {tool['description']}\n\n"
        f"{arguments}\nReturns {returned}{rest}.\n"
    )


def _arguments(
    properties: Mapping[str, Any], wanted: Sequence[str], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    for name, schema in properties.items():
        told = schema.get("description") or _MEANINGS[prefix + name]
        if name in wanted:
            told = f"Required. {told}".strip()
        if "default" in schema:
            told = f"{told} Default: `{_shown(schema['default'])}`.".strip()
        yield f"`{prefix}{name}`", _kind(schema), told
        yield from _arguments(schema.get("properties", {}), (), f"{prefix}{name}.")


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema["type"] == "array":
        return f"list of {schema['items']['type']}s"
    return schema["type"]


def events_part() -> str:
    """Every type of event in a log: when it occurs, and the keys of its detail."""
    rows = [
        (
            f"`{name}`",
            inspect.cleandoc(detail.__doc__ or "").split("\n\n")[0].replace("\n", " "),
            ", ".join(f"`{field.name}`" for field in fields(detail) if field.name != "inner"),
        )
        for name, detail in DETAILS.items()
    ]
    return table(("type", "meaning", "keys of `detail`"), rows)


def commands_part() -> str:
    """Every command: what it does and its options."""
    return "\n".join(_command(path, command) for path, command in commands(cli.main, "rlm-mcp"))


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join((path, *command.collect_usage_pieces(context)[1:]))
    records = [
        option.get_help_record(context)
        for option in command.params
        if isinstance(option, click.Option)
    ]
    rows = [(f"`{names}`", told) for names, told in filter(None, records)]
    options = "\n" + table(("option", "meaning"), rows) if rows else ""
    return f"### `{usage}`\n\n{_paragraphs(command)}\n{options}"


def _paragraphs(command: click.Command) -> str:
    """What a command says of itself; what click is not to wrap stands as it is."""
    parts = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(
        f"```text\n{part[2:]}\n```" if part.startswith("\b\n") else part.replace("\n", " ")
        for part in parts
    )


def settings_part() -> str:
    """The settings of a server: those that are no field of `RLMConfig`."""
    return _settings(lambda name: name not in RLMConfig.model_fields)


def options_part() -> str:
    """The settings that are the fields of `RLMConfig`."""
    return _settings(lambda name: name in RLMConfig.model_fields)


def _settings(is_here: Callable[[str], bool]) -> str:
    # Few limit what each caller may use a day: that comes last, not first as in the classes.
    named = sorted(
        Settings.model_fields.items(), key=lambda item: item[0] in DailyLimits.model_fields
    )
    rows = [_setting(name, field) for name, field in named if is_here(name)]
    return table(("variable", "default", "value", "meaning"), rows)


def _setting(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    variable = f"`{PREFIX}{name.upper()}`"
    if name in ALSO:
        variable += f" (or `{ALSO[name]}`)"
    default = _DEFAULTS.get(name) or (
        f"`{_shown(field.default)}`" if isinstance(field.default, bool | int | float | str) else ""
    )
    return variable, default, _value(field), field.description or ""


_VALUES = (
    ("bool", "`true` or `false`"),
    ("SecretStr]", "table of secrets"),
    ("SecretStr", "secret"),
    ("tuple[pathlib", "list of paths"),
    ("Path", "path"),
    ("dict[str, float]", "number, or table of numbers"),
    ("int", "whole number"),
    ("float", "number"),
    ("str", "text"),
)


def _value(field: FieldInfo) -> str:
    choices = [
        f"`{one}`"
        for part in (field.annotation, *get_args(field.annotation))
        if get_origin(part) is Literal
        for one in get_args(part)
    ]
    if choices:
        return ", ".join(choices)
    bounds = [text for rule in field.metadata if (text := _bound(rule))]
    kind = next(text for mark, text in _VALUES if mark in str(field.annotation))
    return ", ".join((kind, *bounds))


def _bound(rule: object) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return "".join(
        f"{words[name]} {getattr(rule, name):,}" for name in words if hasattr(rule, name)
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def made(text: str, told: Mapping[str, Any]) -> str:
    """A document with each part that is made from the code as it should read."""
    parts: dict[str, Callable[[], str]] = {
        "tools": lambda: tools_part(told),
        "commands": commands_part,
        "events": events_part,
        "settings": settings_part,
        "options": options_part,
    }
    return _PART.sub(lambda part: f"{part[1]}\n{parts[part[2]]()}\n{part[3]}", text)


def registry_entry(text: str) -> str:
    """`server.json` with each variable described as its setting is."""
    entry = json.loads(text)
    for variable in entry["packages"][0]["environmentVariables"]:
        field = Settings.model_fields[variable["name"].removeprefix(PREFIX).lower()]
        variable["description"] = field.description
    return json.dumps(entry, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Renew every document, and what the registry is told."""
    told = anyio.run(surface)
    for path in DOCUMENTS:
        path.write_text(made(path.read_text(), told))
    registry = ROOT / "server.json"
    registry.write_text(registry_entry(registry.read_text()))


if __name__ == "__main__":
    main()
