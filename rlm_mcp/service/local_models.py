"""Model servers that run on this machine when nobody said where one is."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

# Where a model server listens when nobody said otherwise.
LOCAL_SERVERS = (
    ("Ollama", 11434),
    ("LM Studio", 1234),
    ("llama.cpp", 8080),
    ("vLLM", 8000),
)
_PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class LocalModel:
    """A model that a server on this machine offers."""

    server: str
    base_url: str
    name: str


def find_local_model(servers: Sequence[tuple[str, int]] = LOCAL_SERVERS) -> LocalModel | None:
    """Find a server at a usual address that names a model, and the first it names; blocks."""
    for server, port in servers:
        base_url = f"http://127.0.0.1:{port}/v1"
        try:
            with urllib.request.urlopen(f"{base_url}/models", timeout=_PROBE_SECONDS) as reply:  # noqa: S310  # http on loopback
                models = json.load(reply)["data"]
            return LocalModel(server, base_url, str(models[0]["id"]))
        except (urllib.error.URLError, OSError, ValueError, LookupError, TypeError):
            continue  # something else listens there, or nothing
    return None
