"""Hosts' configuration files: adds or removes one server, and keeps everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from rlm_mcp.cli.hosts.host import KEY, SERVER, Host
from rlm_mcp.cli.hosts.json_file import json_value, json_with, json_without

Entry = Mapping[str, Any]
Change = Callable[[Entry], dict[str, Any]]

_TELLING_NAME = r"[\w-]*(?:key|token|secret|password)[\w-]*"
_SECRET = re.compile(rf'("?{_TELLING_NAME}"?\s*[:=]\s*)"([^"]+)"', re.I)
_PLAIN_SECRET = re.compile(rf"^([-+ \t]*{_TELLING_NAME}:[ \t]+)([^\s\"\[{{|>&#][^#\n]*)", re.I)
_LOGIN = re.compile(r"(?<=://)[^/\s\"@]+(?=@)")
_NO_SECRET = re.compile(r"\$\{|sk-\.\.\.$")


def with_server(text: str, host: Host, entry: Entry) -> str:
    """Add our server to a host's file; everything else in it, and in our entry, is kept.

    Raises:
        InvalidInputError: the text is not a file of this host.
    """
    path = (host.servers, SERVER)
    change = partial(merged, entry=entry, variables=host.fields.variables)
    if host.language == "toml":
        from rlm_mcp.cli.hosts.toml_file import toml_with

        return toml_with(text, path, change)
    if host.language == "yaml":
        from rlm_mcp.cli.hosts.yaml_file import yaml_with

        return yaml_with(text or host.beginning, path, change)
    return _json_with_server(text or host.beginning, host, change)


def without_server(text: str, host: Host) -> str:
    """Remove our server from a host's file, and the inputs that only it used.

    Raises:
        InvalidInputError: the text is not a file of this host.
    """
    path = (host.servers, SERVER)
    if host.language == "toml":
        from rlm_mcp.cli.hosts.toml_file import toml_without

        return toml_without(text, path)
    if host.language == "yaml":
        from rlm_mcp.cli.hosts.yaml_file import yaml_without

        return yaml_without(text, path)
    return _json_without_server(text, host)


def entry_in(text: str, host: Host) -> Entry:
    """Our server's entry as it stands in a host's file; empty where it is not there.

    Raises:
        InvalidInputError: the text is not a file of this host.
    """
    if host.language == "json":
        document: Mapping[str, Any] = json_value(text)
        return _table(document, _json_path(document, host))
    if host.language == "toml":
        from rlm_mcp.cli.hosts.toml_file import toml_value as read
    else:
        from rlm_mcp.cli.hosts.yaml_outline import yaml_value as read
    servers: Any = read(text).get(host.servers)
    if isinstance(servers, list):
        ours = [cast("Entry", one) for one in cast("list[Any]", servers) if _is_ours(one)]
        return ours[0] if ours else {}
    return _table({host.servers: servers}, (host.servers, SERVER))


def _is_ours(listed: object) -> bool:
    return isinstance(listed, dict) and cast("Entry", listed).get("name") == SERVER


def _json_with_server(text: str, host: Host, change: Change) -> str:
    document = json_value(text)
    path = _json_path(document, host)
    entry = change(_table(document, path))
    if len(path) == 3:  # the newer form has other fields than these
        entry = {name: one for name, one in entry.items() if name not in host.extra}
    text = json_with(text, path, entry)
    for wanted in host.inputs if host.key in entry[host.fields.variables].values() else ():
        inputs = json_value(text).get("inputs")
        if inputs is None:  # an input stands before what refers to it, as people write it
            text = json_with(text, ("inputs",), [dict(wanted)], is_first=True)
        elif not any(one.get("id") == wanted["id"] for one in inputs):
            text = json_with(text, ("inputs", len(inputs)), dict(wanted))
    return text


def _json_without_server(text: str, host: Host) -> str:
    document = json_value(text)
    path = _json_path(document, host)
    if SERVER not in _table(document, path[:-1]):
        return text
    text = json_without(text, path)
    for wanted in host.inputs:
        left = json_value(text)
        named = [one.get("id") for one in left.get("inputs", [])]
        if wanted["id"] in named and f"input:{wanted['id']}" not in json.dumps(left):
            text = json_without(text, ("inputs", named.index(wanted["id"])))
    return text


def _json_path(document: Mapping[str, Any], host: Host) -> tuple[str, ...]:
    """The place of our entry; newer files of a host may have one more level."""
    inner = _table(document, (host.servers, host.inner))
    if inner and "type" not in inner:  # not a server of that name
        return (host.servers, host.inner, SERVER)
    return (host.servers, SERVER)


def _table(document: Mapping[str, Any], path: tuple[str, ...]) -> Entry:
    """The table at a path; an empty one where there is none."""
    table: Any = document
    for name in path:
        table = cast("Entry", table).get(name) if isinstance(table, dict) else None
    return cast("Entry", table) if isinstance(table, dict) else {}


def holds_key(text: str) -> bool:
    """Whether a text holds our API key rather than a placeholder."""
    found = re.finditer(rf'{KEY}"?\s*[:=]\s*"([^"]*)"', text)
    return any(not _NO_SECRET.match(match[1]) for match in found)


def hide_secrets(text: str) -> str:
    """Replace values with secret-looking names, and logins in URLs, by stars."""

    def hidden(found: re.Match[str]) -> str:
        return found[0] if _NO_SECRET.match(found[2]) else f'{found[1]}"***"'

    return _LOGIN.sub("***", _PLAIN_SECRET.sub(hidden, _SECRET.sub(hidden, text)))


def merged(existing: Entry, entry: Entry, *, variables: str = "env") -> dict[str, Any]:
    """Merge our entry over the existing one; an API key that was filled in stays.

    Args:
        variables: the name under which the host keeps the environment.
    """
    kept = cast("dict[str, str]", existing.get(variables, {}))
    ours = cast("dict[str, str]", entry[variables])
    env = {**kept, **ours}
    filled_in = kept.get(KEY)
    if filled_in and KEY in ours and _NO_SECRET.match(ours[KEY]):
        env[KEY] = filled_in
    return {**existing, **entry, variables: env}
