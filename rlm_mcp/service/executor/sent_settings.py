"""The settings of a worker: the server's, but for what is secret, which its own node has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlm_mcp.engine.models.tables import ModelTable
from rlm_mcp.errors import ConfigurationError
from rlm_mcp.settings import Settings, load_settings
from rlm_mcp.text import without_credentials

# None of them is secret; a key is never sent. Options of a run travel with the run.
_SENT = (
    *("base_url", "root_model", "sub_model", "allowed_models", "root_context_tokens"),
    *("max_concurrent_calls", "max_concurrent_runs", "worker_runs"),
    *("sandbox", "docker_image", "min_isolation"),
)


def to_send(settings: Settings) -> dict[str, Any]:
    """Return what workers are told of the server's settings, JSON-like.

    An address goes without its name and password, and a table of a model without its headers.
    """
    names = settings.model_fields_set & set(_SENT)
    sent = settings.model_dump(mode="json", include=names, exclude_none=True)
    if "base_url" in sent:
        sent["base_url"] = _shown(sent["base_url"])
    sent["models"] = {name: _table_to_send(table) for name, table in settings.models.items()}
    return sent


def _table_to_send(table: ModelTable) -> dict[str, Any]:
    sent = table.model_dump(mode="json", exclude={"headers"}, exclude_defaults=True)
    if "base_url" in sent:
        sent["base_url"] = _shown(sent["base_url"])
    return {**sent, "headers": sorted(table.headers)}


def _shown(address: str) -> str:
    """Leave name and password out of an address, where it has some."""
    return without_credentials(address) if "@" in address else address


def received(sent: Mapping[str, Any]) -> Settings:
    """Return the settings of this worker: what the server sent, and secrets of this machine.

    Raises:
        ConfigurationError: a secret that is needed is not set here.
    """
    own = load_settings()
    given = {name: value for name, value in sent.items() if name != "models"}
    # One of our own has what could not be sent.
    if own.base_url and _shown(own.base_url) == given.get("base_url"):
        del given["base_url"]
    tables = {name: _table(name, table, own) for name, table in sent["models"].items()}
    return load_settings(given={**given, "models": tables})


def _table(name: str, sent: Mapping[str, Any], own: Settings) -> dict[str, Any]:
    mine = own.models.get(name)
    headers = mine.headers if mine else {}
    missing = [header for header in sent["headers"] if header not in headers]
    if missing:
        raise ConfigurationError(
            f"The model {name!r} is asked with the headers {missing!r}, and this node has no "
            "values for them.",
            fix="Set RLM_MCP_MODELS on each node to the table with its headers, as JSON.",
        )
    table = {**sent, "headers": {header: headers[header] for header in sent["headers"]}}
    if mine and mine.base_url and _shown(mine.base_url) == sent.get("base_url"):
        table["base_url"] = mine.base_url
    return table
