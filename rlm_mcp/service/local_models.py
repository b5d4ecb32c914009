"""Model servers on this machine or network: what they offer, and how much a model reads at once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from rlm_mcp.engine.models.addresses import base_of, is_local
from rlm_mcp.engine.models.http_provider import Provider, ProviderWire
from rlm_mcp.engine.models.local.servers import LocalModel, ServerKind, read_model, recognise
from rlm_mcp.engine.models.retry import AttemptFailedError

# Where a model server listens when nobody said otherwise.
LOCAL_SERVERS = (
    ("Ollama", 11434),
    ("LM Studio", 1234),
    ("llama.cpp", 8080),
    ("vLLM", 8000),
)
SMALL_WINDOW = 4096  # tokens; the first message alone takes half of it
_NAMES: dict[ServerKind, str] = {
    "ollama": "Ollama",
    "lm-studio": "LM Studio",
    "llama.cpp": "llama.cpp",
    "vllm": "vLLM",
}
_HOW_TO_WIDEN: dict[ServerKind, str] = {
    "ollama": "Set RLM_MCP_ROOT_CONTEXT_TOKENS, or context_tokens in the model's table: it is sent "
    "as num_ctx. Or start Ollama with OLLAMA_CONTEXT_LENGTH=32768.",
    "lm-studio": "Load the model with a longer context: lms load MODEL --context-length 32768.",
    "llama.cpp": "Start llama-server with a larger -c, which its slots (-np) share.",
    "vllm": "Start vLLM with a larger --max-model-len.",
}
_PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class OfferedModel:
    """A model that a server on this machine offers."""

    server: str
    base_url: str
    name: str


@dataclass(frozen=True)
class ServedModel:
    """A model at a known server, and what that says of it."""

    kind: ServerKind
    model: LocalModel

    @property
    def found(self) -> str:
        """Describe the window in one line."""
        model = self.model
        window = "window not told" if model.window is None else f"a window of {model.window:,}"
        more = f", of {model.most:,} that the model could have" if model.most else ""
        slots = f", {model.slots} slot{'s' * (model.slots > 1)}" if model.slots else ""
        return f"{_NAMES[self.kind]}: {window}{more}{slots}"

    @property
    def how_to_widen(self) -> str:
        """Say how the window is made larger; empty where it is large enough or not known."""
        is_small = self.model.window is not None and self.model.window <= SMALL_WINDOW
        return _HOW_TO_WIDEN[self.kind] if is_small else ""


def find_local_model(servers: Sequence[tuple[str, int]] = LOCAL_SERVERS) -> OfferedModel | None:
    """Find a server at a usual address that names a model, and the first that chats; blocks."""
    for server, port in servers:
        base_url = f"http://127.0.0.1:{port}/v1"
        try:
            with urllib.request.urlopen(f"{base_url}/models", timeout=_PROBE_SECONDS) as reply:  # noqa: S310  # http on loopback
                names = [str(model["id"]) for model in json.load(reply)["data"]]
            chatting = [name for name in names if "embed" not in name.lower()]
            return OfferedModel(server, base_url, chatting[0])
        except (urllib.error.URLError, OSError, ValueError, LookupError, TypeError):
            continue  # something else listens there, or nothing
    return None


async def read_served_model(provider: Provider, name: str, seconds: float) -> ServedModel | None:
    """Ask a server of one's own which it is and what it says of a model; None for any other."""
    if not is_local(provider.base_url):
        return None
    wire, base = ProviderWire(provider, seconds), base_of(provider.base_url)
    try:
        kind = await recognise(wire.look, base)
        return (
            None
            if kind is None
            else ServedModel(kind, await read_model(wire.look, base, kind, name))
        )
    except AttemptFailedError:
        return None
    finally:
        await wire.close()
