"""What chat and text completions have in common: sampling, streaming, usage."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.schema.constraints import Choices, JsonSchema, ResponseFormat, StructuredOutputs
from gateway.api.schema.keep_alive import KeepAlive
from gateway.api.schema.prompts import Truncation

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
StopString = Annotated[str, Meta(min_length=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Biases = Annotated[dict[str, Bias], Meta(extra_json_schema={"propertyNames": {"pattern": "^[0-9]+$"}})]
"""By token id."""


class StreamOptions(Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_wake: bool | None = None
    """While nothing comes, chunks without choices tell what the model is doing."""


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """The fields of any request for tokens."""

    model: str

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    truncate_prompt_tokens: Truncation | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    """0: the most likely token alone."""
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    """-1 and 0 both mean all."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Int64 | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=64)] | None = None
    stop_token_ids: Annotated[list[int], Meta(max_length=256)] | None = None
    ignore_eos: bool | None = None

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    echo: bool | None = None
    user: str | None = None
    """Accepted, and changes nothing."""
    keep_alive: KeepAlive | None = None

    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    logit_bias: Biases | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonSchema | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    guided_choice: Choices | None = None


class PromptTokensDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int


class CompletionTokensDetails(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int


class Usage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails | UnsetType = UNSET


class WakeProgress(Struct, frozen=True, kw_only=True):
    phase: str
    done: int
    total: int


class Wake(Struct, frozen=True, kw_only=True):
    """What a client waits for."""

    state: str
    """Of the model, and for how many seconds it has been so."""
    seconds: float
    level: int | None
    """Of the sleep that it comes from."""
    queued: int
    """Requests without a token yet, this one among them."""
    waiting_for: str | None
    """``opening``, ``wake``, ``room``, ``turn`` or ``place``; None: this one has its place."""
    progress: WakeProgress | None


ChunkUsage = Usage | UnsetType | None
"""A chunk has its usage, or null when only the last one will, or no such key."""
