"""The tables in which an operator names models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from rlm_mcp.engine.models.addresses import host_of, is_header_text, problem_with

ANTHROPIC_BASE_URL = "https://api.anthropic.com"
ANTHROPIC_KEY = "ANTHROPIC_API_KEY"
NATIVE = frozenset({"anthropic", "responses"})
"""Providers that are asked through their own packages."""
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def _sendable(address: str) -> str:
    if problem := problem_with(address):
        raise ValueError(problem)
    return address


def _in_a_header(key: SecretStr) -> SecretStr:
    if not is_header_text(key.get_secret_value()):
        raise ValueError("it contains invalid characters; copy it again from the provider")
    return key


Address = Annotated[str, AfterValidator(_sendable)]
"""The root of an API, to which requests can be sent."""
Key = Annotated[SecretStr, AfterValidator(_in_a_header)]
"""The key of an API, which is sent in a header."""


class ModelTable(BaseModel):
    """One `[models.NAME]` table of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["openai", "responses", "anthropic", "command"] = Field(
        default="openai",
        description="Who speaks: an OpenAI-compatible API, OpenAI's Responses API, Anthropic's "
        "Messages API, or a command.",
    )
    model: str = Field(default="", description="The provider's name of it; NAME if not set.")
    base_url: Address | None = Field(
        default=None, description="Root of the API; the default endpoint if not set."
    )
    api_key_env: str | None = Field(
        default=None, description="Environment variable that holds the key."
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict[str, SecretStr], description="Sent with each request."
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="Added to each request's JSON."
    )
    reasoning_effort: str | None = Field(default=None, description="Sent where it is taken.")
    context_tokens: int | None = Field(default=None, ge=2000, description="The model's window.")
    input_price: float | None = Field(
        default=None, ge=0, description="USD per million input tokens."
    )
    cached_input_price: float | None = Field(
        default=None, ge=0, description="USD per million input tokens out of the cache."
    )
    output_price: float | None = Field(
        default=None, ge=0, description="USD per million output tokens."
    )
    max_concurrent_calls: int | None = Field(default=None, ge=1, description="Calls at once.")
    fallback: str | None = Field(
        default=None, description="Name of the model that answers when this one fails."
    )
    server: Literal["ollama", "lm-studio", "llama.cpp", "vllm", "openai", "other"] | None = Field(
        default=None,
        description="Which server answers, where its address does not tell; one of your own is "
        "asked once.",
    )
    command: tuple[str, ...] | str | None = Field(
        default=None, description="argv, or a preset: claude, codex, gemini, llm."
    )

    @property
    def extras(self) -> Mapping[str, object]:
        """Fields of the table that each request's JSON gets."""
        effort = {"reasoning_effort": self.reasoning_effort} if self.reasoning_effort else {}
        return {**self.extra_body, **effort}


# Hosts whose API takes a JSON Schema for replies; what one of their models refuses is left out.
_SCHEMA_HOSTS = frozenset(
    {
        "api.openai.com",
        "api.mistral.ai",
        "api.x.ai",
        "generativelanguage.googleapis.com",
        "openrouter.ai",
    }
)


_SCHEMA_SERVERS = frozenset({"lm-studio", "llama.cpp", "vllm", "openai"})
_OPENAI_HOST = "api.openai.com"


def takes_schemas(table: ModelTable, address: str) -> bool:
    """Whether an endpoint is known to make replies that fit a JSON Schema."""
    if table.provider in {"anthropic", "responses"}:
        return True
    if table.server is not None:
        return table.server in _SCHEMA_SERVERS
    return host_of(address) in _SCHEMA_HOSTS


def takes_cache_key(table: ModelTable, address: str) -> bool:
    """Whether an endpoint is known to take a key by which it finds prompts of the same run."""
    if table.server is not None:
        return table.server == "openai"
    return host_of(address) == _OPENAI_HOST


def with_good_names(tables: dict[str, ModelTable]) -> dict[str, ModelTable]:
    """Return tables whose names can stand in an argument.

    Raises:
        ValueError: a name cannot.
    """
    if not all(map(_NAME.fullmatch, tables)):
        raise ValueError("a model's name needs 1 to 64 letters, digits, '-', '_', '.' or ':'")
    return tables
