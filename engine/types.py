"""What crosses the seam between the gateway and an engine: plain data and errors, no torch.

Sizes are in bytes and durations in seconds, everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Level = Literal[1, 2]
Tag = Literal["weights", "kv_cache"]
DType = Literal["auto", "bfloat16", "float16", "float32"]
FinishReason = Literal["stop", "length"]
Kind = Literal["generate", "embed"]
ConstraintKind = Literal["json", "json_schema", "regex", "grammar", "choice"]

ALL_TAGS: frozenset[Tag] = frozenset({"weights", "kv_cache"})


class EngineError(Exception):
    """Something that an engine could not do. The message is for the operator and may name files."""


class CheckpointError(EngineError):
    """The checkpoint's files are missing, changed, malformed or of an unsupported kind.

    ``reason`` says so without a path of the server, for the client.
    """

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or "the model's checkpoint cannot be read"


class OutOfMemory(EngineError):
    """Memory that was asked for is not there; nothing was taken."""

    def __init__(self, needed: int, available: int) -> None:
        # Rounded up here and down there, so that the two differ as told.
        super().__init__(f"{-(-needed // 2**20)} MiB needed, {available // 2**20} MiB available")
        self.needed = needed
        self.available = available


class DeviceError(EngineError):
    """The device itself failed; no engine on it can go on in this process."""


class RequestError(EngineError):
    """A request that this model can never serve, whatever its state. ``param`` names the culprit."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How a checkpoint is to be served."""

    dtype: DType = "auto"
    max_model_len: int | None = None
    """Tokens of prompt and answer together; None: what the checkpoint says."""
    max_running: int = 64
    """Sequences decoded together."""
    kv_limit: int | None = None
    """Most bytes that the KV cache may ever hold; None: only what max_running and max_model_len say."""
    device_limit: int | None = None
    """Most bytes that all engines on the device may hold together; the last engine opened decides."""
    host_limit: int | None = None
    """Most bytes of RAM that they may lock beside a device with memory of its own; in the same way."""
    copy_early: bool = True
    """Lock RAM for the weights when they are first read, for level-1 sleeps; else for the first of those."""
    prefix_cache: bool = True
    """Keep the KV blocks of finished sequences for prompts that begin as they did."""
    revision: str = "main"
    """Branch, tag or commit, for a hub id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a checkpoint would take, from its headers alone."""

    weights_bytes: int
    least_bytes: int
    """Device bytes of the awake model while nothing runs: weights as they are committed, the first KV chunk,
    and the residue."""
    kv_bytes_per_token: int
    max_model_len: int
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of a model without its weights."""

    kind: Kind
    architecture: str
    dtype: str
    max_model_len: int
    vocab_size: int
    longest_token_bytes: int
    """UTF-8 length of the longest token: bounds how few tokens a text can have."""
    chat_template: str | None
    special_tokens: Mapping[str, str]
    """``bos_token``, ``eos_token``, ... as the chat template expects them."""
    sampling_defaults: Mapping[str, float]
    """``temperature``, ``top_p``, ``top_k``, ``min_p``, ``repetition_penalty`` where
    generation_config.json sets them."""
    embedding_size: int | None = None
    """Numbers of a vector, of a model of kind ``embed``."""
    matryoshka: bool = False
    """Whether shorter vectors, the first numbers of the whole ones, are of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What form an answer must have."""

    kind: ConstraintKind
    """``json``: any JSON object; ``grammar``: Lark; ``choice``: one of several texts."""
    value: str | tuple[str, ...] = ""
    """A JSON schema as text, a regular expression, a grammar, or the choices."""
    frame: str | None = None
    """A grammar in which ``@body`` stands for all of the above."""


class Grammar(Protocol):
    """A constraint compiled for one model's tokenizer: opaque, immutable, shared among requests."""

    @property
    def constraint(self) -> Constraint: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen and when to stop."""

    max_tokens: int
    """0: the prompt is computed, for its log probabilities or its KV, and there is no answer."""
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 means all."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the prompt and of the answer so far less likely, below 1 more."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Text that ends the answer; not part of it."""
    stop_token_ids: frozenset[int] = frozenset()
    """Beside the model's own end-of-sequence tokens."""
    presence_penalty: float = 0.0
    """Subtracted once from the logits of tokens that the answer has already."""
    frequency_penalty: float = 0.0
    """Subtracted as often as the answer has the token."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these token ids."""
    logprobs: int | None = None
    """Report each token's log probability and so many of the most likely ones; None: nothing. Of the
    model's own distribution: before penalties, bias, temperature and constraints."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens."""
    grammar: Grammar | None = None
    """From ``Engine.compile`` of the same engine."""
    min_tokens: int = 0
    """No end-of-sequence, stop token or stop string before so many tokens."""
    ignore_eos: bool = False
    shown_tokens: frozenset[int] = frozenset()
    """Special tokens that are part of the text, as others are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    prompt_ids: Sequence[int]
    sampling: SamplingParams
    n: int = 1
    """Choices. They share the prompt's KV; the seed of choice i is ``seed + i``."""
    read_ahead: int = 1024
    """Tokens of all choices that may wait to be taken, a few steps in any case; then the answer pauses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    token_id: int
    logprob: float
    rank: int
    """1 for the most likely token of the vocabulary."""
    top: tuple[tuple[int, float], ...] = ()
    """The most likely (token id, log probability), best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one step added to one choice."""

    index: int = 0
    token_ids: tuple[int, ...] = ()
    text: str = ""
    """May be empty while bytes of a character or a possible stop string are held back."""
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of ``token_ids``, where asked for."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    """On the first delta of choice 0, where asked for: one a token of the prompt, None for the first."""
    cached_tokens: int = 0
    """On the first delta of a choice: tokens of the prompt whose KV was in the prefix cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes that a model holds now, and what waking it would add."""

    weights: int = 0
    """Committed on the device (on a CPU: in RAM, asleep at level 1 too)."""
    packed: int = 0
    """How many of ``weights`` lie as the device's kernels prefer them, in their own place."""
    kv: int = 0
    kept: int = 0
    """How many of ``kv`` are of suspended sequences, which a sleep leaves to them."""
    host_copy: int = 0
    """Parked in host RAM. On a CPU device the weights of a level-1 sleeper are counted here *and* in
    ``weights``: one pool, the same bytes."""
    residue: int = 0
    """What stays in any sleeper: buffers, graphs."""
    to_wake: int = 0
    """Device bytes that a wake would commit beyond what is held: weights, and the first KV chunk, or what the
    largest of the suspended sequences needs to go on."""

    @property
    def device(self) -> int:
        """Everything on the device."""
        return self.weights + self.kv + self.residue


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a download, a load or a wake has come."""

    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionReport:
    """One wake or sleep, measured: seconds in all and by phase, bytes filled or given back."""

    seconds: float
    bytes: int
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryState:
    """A device's memory, or the host's, as the system tells it now."""

    total: int
    """What this process could ever use: the device's size, or RAM within its cgroup."""
    available: int
    """What could be taken now; on the host the page cache counts as available."""
    shared_with_host: bool
    """True for a CPU device: device memory is host memory, one pool."""
