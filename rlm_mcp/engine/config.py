"""How one question is answered: limits, sampling, prompts and prices."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PromptVariantName = Literal["default", "cost_warning", "small_context"]


class RLMConfig(BaseModel):
    """Options of a run; immutable, and checked when made.

    Raises:
        ValueError: a value is out of range or a name is unknown (pydantic's `ValidationError`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_iterations: int = Field(default=25, ge=1, description="Maximum turns of the root model.")
    max_sub_calls: int = Field(
        default=500, ge=0, description="Maximum sub-calls, those of inner runs included."
    )
    max_recursion_depth: int = Field(
        default=1,
        ge=1,
        description="1: plain sub-calls; 2 or more: sub-calls may be whole RLMs.",
    )
    max_seconds: float | None = Field(
        default=None, gt=0, description="Maximum wall-clock seconds of a run."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Maximum tokens in and out, inner runs included."
    )
    max_usd: float | None = Field(
        default=None, gt=0, description="Maximum cost in USD, inner runs included; needs prices."
    )
    enable_sub_calls: bool = Field(
        default=True, description="Whether code may call models; False: no `llm_query`."
    )
    metadata_prefix_chars: int = Field(
        default=1000,
        ge=0,
        description="Characters that the root model is shown of the text's start, and of output.",
    )
    direct_max_chars: int = Field(
        default=0,
        ge=0,
        description="Texts of up to this many characters are put whole into the first message; "
        "0: never.",
    )
    sub_call_max_input_chars: int = Field(
        default=500_000, ge=1, description="Maximum characters of one sub-call's prompt."
    )
    temperature: float | None = Field(
        default=0.6,
        ge=0,
        le=2,
        description="Sampling temperature of the root model; None: not sent.",
    )
    sub_temperature: float | None = Field(
        default=0.4, ge=0, le=2, description="Sampling temperature of sub-calls; None: not sent."
    )
    root_max_tokens: int = Field(
        default=16_384, ge=1, description="Maximum output tokens of one root turn."
    )
    root_context_tokens: int | None = Field(
        default=None,
        ge=2_000,
        description="Context window of the root model, in tokens; older turns are summarized "
        "before it is full.",
    )
    sub_max_tokens: int = Field(
        default=8_192, ge=1, description="Maximum output tokens of one sub-call."
    )
    max_concurrent_calls: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="Maximum model calls at the same time; in a server, of all runs together.",
    )
    sandbox_timeout: float = Field(
        default=120,
        gt=0,
        description="Maximum seconds that one cell runs; waiting for sub-calls does not count.",
    )
    attempts: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Independent runs that answer within one budget; what they agree on counts.",
    )
    prompt_variant: PromptVariantName = Field(
        default="default",
        description="System prompt: `cost_warning` asks the model to save calls, `small_context` "
        "suits small models.",
    )
    cost_per_input_token: float = Field(default=0.0, ge=0, description="USD per input token.")
    cost_per_output_token: float = Field(default=0.0, ge=0, description="USD per output token.")
    verbose: bool = Field(default=False, description="Print events to stderr.")
