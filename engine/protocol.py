"""What an engine can do for the gateway.

The gateway is written against this and ``engine.types`` alone, so tests put a fake engine behind it, and an
engine in another process would fit in the same place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Protocol

from engine.types import (
    ALL_TAGS,
    Constraint,
    Delta,
    Footprint,
    GenerateRequest,
    Grammar,
    Level,
    ModelInfo,
    Progress,
    Tag,
    TransitionReport,
)

if TYPE_CHECKING:
    from array import array


class Engine(Protocol):
    """One model. All coroutines are called from one asyncio loop; none is called concurrently with
    another of ``load``, ``wake``, ``sleep``, ``suspend``, ``resume``, ``trim_kv`` and ``reload_weights`` of
    the same engine, and ``generate`` only between a finished wake and the next sleep: the caller's lifecycle
    sees to both."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def last_step_at(self) -> float | None:
        """``time.monotonic()`` at the end of the last step; None before the first."""

    def encode(self, text: str, *, add_special_tokens: bool = True, most: int | None = None) -> list[int]:
        """Thread-safe and blocking: call it off the loop for long texts. Of a text of more than ``most``
        tokens, special ones among them, a model that generates keeps the end, one that embeds the start."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...

    def token_bytes(self, token_id: int) -> bytes:
        """What the token stands for, which may be half a character."""

    def token(self, token_id: int) -> str:
        """As the vocabulary spells it, in which a space may be another letter."""

    def compile(self, constraint: Constraint) -> Grammar:
        """Thread-safe, blocking and cached: call it off the loop. Needs no weights.
        Raises RequestError for one that is malformed or beyond what can be enforced."""

    async def load(self) -> None:
        """Prepare all that survives sleep: download what is missing, read headers, reserve address
        ranges. Reads no weights; does nothing the second time. Raises CheckpointError."""

    async def wake(self, tags: frozenset[Tag] = ALL_TAGS) -> TransitionReport:
        """Commit and fill what ``tags`` name and is not there yet. After a failure everything that this
        call took is given back. Raises CheckpointError, OutOfMemory, DeviceError."""

    async def sleep(self, level: Level) -> TransitionReport:
        """Release KV and working memory; at level 2 the weights too. Works from awake, half-woken
        and, to level 2, from level 1. Never fails half-way. What runs or waits ends with an error, but for
        suspended sequences, which go on after a wake and ``resume``."""

    async def suspend(self, *, keep_kv: bool) -> None:
        """Stop stepping at the end of the step under way. Streams stay open and give nothing until
        ``resume``, however often the engine sleeps and wakes meanwhile, or fails to wake; one that is closed
        gives its memory back at once; ``close`` ends them with an error. A ``generate`` before the sleep
        joins them.

        ``keep_kv``: the KV of sequences stays through ``sleep``, ``trim_kv`` and ``wake``, unless another
        engine on the device lacks memory for its own; they go on bit by bit as if nothing had been. Else, and
        where it was taken away, it is computed again after ``resume``, as is a chunk of prompts that was in
        the making. Asked again while suspended, without ``keep_kv``, gives up what was kept.

        A model of kind ``embed`` goes on later with the inputs that are left."""

    async def resume(self) -> None:
        """Go on with what is suspended, if anything is. Raises EngineError while the model is not awake."""

    async def went_on(self) -> None:
        """Return when, since the last ``resume``, something has got further than it was when it was
        suspended, or nothing of it is left that is read: till then what was given up is computed again."""

    def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Delta]]:
        """Yield one list of deltas a step, until every choice has finished; ``aclose`` aborts within one
        step. Who takes them too slowly gets no more for a while, and holds no memory of the device meanwhile.
        Raises RequestError before the first token, EngineError in the middle."""

    async def embed(
        self, inputs: Sequence[Sequence[int]], dimensions: int | None = None
    ) -> list[array[float]]:
        """A float32 vector for each input's token ids, pooled and normalised as the checkpoint says, cut to
        ``dimensions`` and normalised again if given. Cancelling it aborts within one step.
        Only for models of kind ``embed``, between a finished wake and the next sleep. Raises RequestError."""

    async def reset_prefix_cache(self) -> None:
        """Forget the KV of finished sequences."""

    async def trim_kv(self) -> int:
        """Give back KV memory that no running or suspended sequence uses; bytes freed."""

    async def trim_copy(self) -> int:
        """Give back what an awake model keeps of its weights in the host's memory for its next sleep, as the
        engine does by itself where another one on the device needs it for its own sleep; bytes freed."""

    async def reload_weights(self) -> None:
        """Adopt the files as they are now if names, shapes and dtypes are unchanged; else raise
        CheckpointError and keep the old state. Weights that are there are read anew; when that fails, they
        are lost, and the engine is as after a sleep at level 2. Only while nothing runs; suspended sequences,
        whose answers are the old weights', end with an error."""

    def footprint(self) -> Footprint: ...

    def progress(self) -> Progress | None:
        """Of the download or wake under way; None when there is none."""

    def fault(self) -> str | None:
        """Why this engine cannot be trusted to answer (a stuck step, a device error); None: healthy."""

    async def close(self) -> None:
        """Abort what runs and give everything back. The engine is not used again."""
