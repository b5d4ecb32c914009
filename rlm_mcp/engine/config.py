"""How one question is answered: limits, sampling, prompts and prices."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PromptVariant = Literal["default", "cost_warning", "small_context"]


class RLMConfig(BaseModel):
    """Options of a run; immutable, and checked when made.

    Raises:
        ValueError: a value is out of range or a name is unknown (pydantic's `ValidationError`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_iterations: int = Field(default=25, ge=1, description="Turns of the root model.")
    max_sub_calls: int = Field(
        default=500, ge=0, description="Sub-calls in the whole tree of a run."
    )
    max_recursion_depth: int = Field(
        default=1,
        ge=1,
        description="1 is plain sub-calls; 2 and more lets sub-calls be whole RLMs.",
    )
    max_seconds: float | None = Field(
        default=None, gt=0, description="Wall-clock seconds of a run."
    )
    max_tokens: int | None = Field(default=None, ge=1, description="Tokens in and out, whole tree.")
    max_usd: float | None = Field(default=None, gt=0, description="Cost in USD, whole tree.")
    enable_sub_calls: bool = Field(
        default=True, description="False leaves out `llm_query` altogether."
    )
    metadata_prefix_chars: int = Field(
        default=1000,
        ge=0,
        description="Characters of the context and of output shown to the root model.",
    )
    direct_max_chars: int = Field(
        default=0,
        ge=0,
        description="Texts up to so many characters stand in the first message whole; 0: none.",
    )
    sub_call_max_input_chars: int = Field(
        default=500_000, ge=1, description="Longest prompt of one sub-call, characters."
    )
    temperature: float | None = Field(
        default=0.6, ge=0, le=2, description="Root model; None: not sent."
    )
    sub_temperature: float | None = Field(
        default=0.4, ge=0, le=2, description="Sub-calls; None: not sent."
    )
    root_max_tokens: int = Field(
        default=16_384, ge=1, description="Output tokens of one root turn."
    )
    root_context_tokens: int | None = Field(
        default=None,
        ge=2_000,
        description="The root model's window; older turns are summed up before it is full.",
    )
    sub_max_tokens: int = Field(default=8_192, ge=1, description="Output tokens of one sub-call.")
    max_concurrent_calls: int = Field(
        default=32, ge=1, le=10_000, description="Model calls at once; a server's in all."
    )
    sandbox_timeout: float = Field(
        default=120, gt=0, description="Seconds one cell may run, waiting for sub-calls left out."
    )
    prompt_variant: PromptVariant = Field(
        default="default", description="Which system prompt is used."
    )
    cost_per_input_token: float = Field(default=0.0, ge=0, description="USD per input token.")
    cost_per_output_token: float = Field(default=0.0, ge=0, description="USD per output token.")
    verbose: bool = Field(default=False, description="Print what happens to stderr.")
