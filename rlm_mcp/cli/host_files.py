"""Hosts' configuration files: adds or removes one server, and keeps everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from rlm_mcp.cli.hosts import KEY, SERVER, Host
from rlm_mcp.cli.toml_file import toml_with, toml_without
from rlm_mcp.errors import InvalidInputError

Entry = Mapping[str, Any]

_SECRET = re.compile(r'("?[\w-]*(?:key|token|secret|password)[\w-]*"?\s*[:=]\s*)"([^"]+)"', re.I)
_LOGIN = re.compile(r"(?<=://)[^/\s\"@]+(?=@)")
_NO_SECRET = re.compile(r"\$\{|sk-\.\.\.$")


def with_server(text: str, host: Host, entry: Entry) -> str:
    """Add our server to a host's file; everything else in it, and in our entry, is kept.

    Raises:
        InvalidInputError: the text is not a file of this host.
    """
    if host.language == "toml":
        return toml_with(text, (host.servers, SERVER), partial(merged, entry=entry))
    document = _read_json(text)
    servers = _table(document, host.servers)
    servers[SERVER] = merged(_table(servers, SERVER), entry)
    for wanted in host.inputs if host.key in servers[SERVER]["env"].values() else ():
        inputs = document.get("inputs", [])
        if not any(one.get("id") == wanted["id"] for one in inputs):
            # An input stands before what refers to it, as people write it.
            rest = {key: value for key, value in document.items() if key != "inputs"}
            document = {"inputs": [*inputs, dict(wanted)], **rest}
    return _write_json(document, text)


def without_server(text: str, host: Host) -> str:
    """Remove our server from a host's file, and the inputs that only it used.

    Raises:
        InvalidInputError: the text is not a file of this host.
    """
    if host.language == "toml":
        return toml_without(text, (host.servers, SERVER))
    document = _read_json(text)
    if SERVER not in _table(document, host.servers):
        return text
    del document[host.servers][SERVER]
    ours = {wanted["id"] for wanted in host.inputs}
    if ours and not any(f"input:{name}" in json.dumps(document) for name in ours):
        document["inputs"] = [one for one in document.get("inputs", []) if one["id"] not in ours]
    return _write_json(document, text)


def holds_key(text: str) -> bool:
    """Whether a text holds our API key rather than a placeholder."""
    found = re.finditer(rf'{KEY}"?\s*[:=]\s*"([^"]*)"', text)
    return any(not _NO_SECRET.match(match[1]) for match in found)


def hide_secrets(text: str) -> str:
    """Replace values with secret-looking names, and logins in URLs, by stars."""

    def hidden(found: re.Match[str]) -> str:
        return found[0] if _NO_SECRET.match(found[2]) else f'{found[1]}"***"'

    return _LOGIN.sub("***", _SECRET.sub(hidden, text))


def merged(existing: Entry, entry: Entry) -> dict[str, Any]:
    """Merge our entry over the existing one; an API key that was filled in stays."""
    env = {**cast("dict[str, str]", existing.get("env", {})), **entry["env"]}
    filled_in = existing.get("env", {}).get(KEY)
    if filled_in and KEY in entry["env"] and _NO_SECRET.match(entry["env"][KEY]):
        env[KEY] = filled_in
    return {**existing, **entry, "env": env}


def _read_json(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        document = json.loads(text, object_pairs_hook=_without_doubles)
    except ValueError as error:
        raise InvalidInputError(f"It is not plain JSON: {error}.") from error
    if not isinstance(document, dict):
        raise InvalidInputError("It is not a JSON object.")
    return cast("dict[str, Any]", document)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name occurs twice, and one of the two would be lost")
    return fields


def _write_json(document: Mapping[str, Any], like: str) -> str:
    """Write JSON with the indentation and final newline of another text."""
    indented = re.search(r"^([ \t]+)\S", like, re.MULTILINE)
    indent = indented[1] if indented else "  "
    written = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    return written if like and not like.endswith("\n") else written + "\n"


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.setdefault(name, {})
    if not isinstance(table, dict):
        raise InvalidInputError(f"{name!r} is not a table.")
    return cast("dict[str, Any]", table)
