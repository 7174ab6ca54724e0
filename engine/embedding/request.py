"""A request for embeddings: its inputs on their way, and the vectors that it waits for."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from engine.types import EngineError, ModelInfo, RequestError


@dataclass(slots=True, eq=False)
class Input:
    """One text, and how far it has come. Lives on the worker."""

    request: EmbedRequest
    index: int
    ids: Sequence[int]
    computed: int = 0
    reached: int = 0
    """The most that ``computed`` ever was: up to here an input that lost its KV is computed again."""
    blocks: Sequence[int] = ()
    hidden: list[torch.Tensor] = field(default_factory=list)
    """Of the tokens computed, [tokens, hidden] by steps."""


class EmbedRequest:
    """Owned by the worker from submission on, except for ``aborted``, which the loop may set."""

    def __init__(self, inputs: Sequence[Sequence[int]], dimensions: int | None) -> None:
        self.left = deque(Input(self, index, ids) for index, ids in enumerate(inputs))
        """Those without a vector yet."""
        self.dimensions = dimensions
        self.vectors: dict[int, array[float]] = {}
        self.aborted = False
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[list[array[float]]] = self._loop.create_future()

    def take(self, work: Input, vector: torch.Tensor) -> None:
        self.left.remove(work)
        self.vectors[work.index] = array("f", vector.cpu().numpy().tobytes())
        if not self.left:
            self._deliver([self.vectors[index] for index in sorted(self.vectors)])

    def fail(self, error: EngineError) -> None:
        self.aborted = True
        self._deliver(error)

    def _deliver(self, result: list[array[float]] | EngineError) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(_settle, self.answer, result)


def _settle(answer: asyncio.Future[list[array[float]]], result: list[array[float]] | EngineError) -> None:
    if not answer.done():
        if isinstance(result, EngineError):
            answer.set_exception(result)
        else:
            answer.set_result(result)


def check_inputs(info: ModelInfo, inputs: Sequence[Sequence[int]], dimensions: int | None) -> None:
    """Raises RequestError for what this model can never embed."""
    if info.kind != "embed" or info.embedding_size is None:
        raise RequestError("this model generates text and has no embeddings", param="model")
    for ids in inputs:
        if not ids:
            raise RequestError("an input is empty", param="input")
        if len(ids) > info.max_model_len:
            message = f"an input has {len(ids)} tokens, the model takes {info.max_model_len}"
            raise RequestError(message, param="input", code="context_length_exceeded")
        if not all(0 <= token < info.vocab_size for token in ids):
            raise RequestError("a token id of an input is out of vocabulary", param="input")
    if dimensions is not None and not info.matryoshka and dimensions != info.embedding_size:
        raise RequestError("this model's vectors cannot be cut to fewer dimensions", param="dimensions")
    if dimensions is not None and not 1 <= dimensions <= info.embedding_size:
        message = f"dimensions must be from 1 to {info.embedding_size}"
        raise RequestError(message, param="dimensions")
