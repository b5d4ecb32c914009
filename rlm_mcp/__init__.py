"""Recursive Language Models as an MCP server and a library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlm_mcp.engine.cache import MemoryCache, SubCallCache
    from rlm_mcp.engine.config import RLMConfig
    from rlm_mcp.engine.models.chat import ChatModel, ChatReply, ChatRequest
    from rlm_mcp.engine.run_context import RLMEvent
    from rlm_mcp.engine.types import HistoryEntry, RLMResponse
    from rlm_mcp.engine.wrapper import RLMWrapper
    from rlm_mcp.errors import (
        BudgetExceededError,
        ConfigurationError,
        ContextLengthError,
        InvalidInputError,
        IsolationError,
        ModelAuthenticationError,
        ModelConnectionError,
        ModelError,
        ModelRateLimitError,
        ModelReplyError,
        ModelRequestError,
        RLMError,
        SandboxError,
    )
    from rlm_mcp.service.batch.batch import BatchOptions
    from rlm_mcp.service.batch.lines import BatchLine
    from rlm_mcp.service.batch.opening import open_batch
    from rlm_mcp.settings import Settings
    from rlm_mcp.values import Usage


__version__ = "0.1.0"

__all__ = [
    "BatchLine",
    "BatchOptions",
    "BudgetExceededError",
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "ConfigurationError",
    "ContextLengthError",
    "HistoryEntry",
    "InvalidInputError",
    "IsolationError",
    "MemoryCache",
    "ModelAuthenticationError",
    "ModelConnectionError",
    "ModelError",
    "ModelRateLimitError",
    "ModelReplyError",
    "ModelRequestError",
    "RLMConfig",
    "RLMError",
    "RLMEvent",
    "RLMResponse",
    "RLMWrapper",
    "SandboxError",
    "Settings",
    "SubCallCache",
    "Usage",
    "__version__",
    "open_batch",
]

_HOMES = {
    "BatchLine": "service.batch.lines",
    "BatchOptions": "service.batch.batch",
    "ChatModel": "engine.models.chat",
    "ChatReply": "engine.models.chat",
    "ChatRequest": "engine.models.chat",
    "HistoryEntry": "engine.types",
    "MemoryCache": "engine.cache",
    "RLMConfig": "engine.config",
    "RLMEvent": "engine.run_context",
    "RLMResponse": "engine.types",
    "RLMWrapper": "engine.wrapper",
    "Settings": "settings",
    "SubCallCache": "engine.cache",
    "Usage": "values",
    "open_batch": "service.batch.opening",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that `import rlm_mcp` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
