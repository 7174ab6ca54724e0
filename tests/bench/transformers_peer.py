"""Plain ``transformers`` as a peer: ``generate`` on a batch of prompts, in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tests.bench.streams import Stream


class TransformersPeer:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[Stream]:
        """A batch has no streams of its own: the times of its steps stand for all."""
        self._connection.send((list(map(list, prompts)), tokens))
        asked, came = self._connection.recv()
        return [Stream(asked, came) for _ in prompts]


@contextmanager
def transformers_peer(checkpoint: Path, threads: int) -> Iterator[TransformersPeer]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, str(checkpoint), threads), daemon=True)
    process.start()
    try:
        ours.recv()
        yield TransformersPeer(ours)
    finally:
        process.terminate()


def _work(connection: Connection, checkpoint: str, threads: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

    class Clock(StoppingCriteria):  # type: ignore[misc]
        """Asked after each token."""

        def __init__(self) -> None:
            self.came: list[float] = []

        def __call__(self, ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
            self.came.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()
    connection.send("ready")
    while True:
        prompts, tokens = connection.recv()
        ids, clock, asked = torch.tensor(prompts), Clock(), time.perf_counter()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        connection.send((asked, clock.came))
