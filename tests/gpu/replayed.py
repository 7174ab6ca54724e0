"""An arena and a graph over it, by plain torch: the ground on which models sleep and wake."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Literal

import torch

from engine.graphs import GraphRecorder
from engine.memory.cuda import CudaArena, TensorFactory
from engine.memory.driver import Driver
from engine.memory.host import LockedMemory
from engine.memory.ring import Ring
from engine.memory.transfer import commit_from
from tests.bench.gpu import card


class Replayed:
    """Layers of bfloat16 products over an arena, recorded once. Their numbers also lie in locked RAM."""

    def __init__(
        self,
        driver: Driver,
        make_tensor: TensorFactory,
        recorder: GraphRecorder,
        *,
        layers: int,
        width: int,
        chunk: int,
        seed: int,
    ) -> None:
        self._driver = driver
        size = layers * width * width * 2
        self.arena = CudaArena(driver, size, make_tensor=make_tensor, chunk=chunk)
        self._copy = LockedMemory(driver, self.arena.size)
        numbers = self._copy.tensor[:size].view(torch.bfloat16)
        generator = torch.Generator().manual_seed(seed)
        numbers.copy_(torch.randn(len(numbers), generator=generator) / width**0.5)
        weights = self.arena.tensor[:size].view(torch.bfloat16).view(layers, width, width)
        device = self.arena.tensor.device
        start = torch.randn(8, width, generator=generator).to(device, torch.bfloat16)
        self._out = torch.zeros_like(start)

        def run() -> None:
            x = start
            for layer in weights:
                x = torch.mm(x, layer).tanh()
            self._out.copy_(x)

        self._wake_from_copy()
        run()
        card.finish()
        self._graph = recorder.record(run)
        self.expected = self.replay()

    def replay(self) -> torch.Tensor:
        self._out.fill_(torch.nan)
        self._graph.replay()
        card.finish()
        return self._out.clone()

    def sleep(self) -> None:
        card.finish()
        self.arena.release(0, self.arena.size)

    def wake(self, level: Literal[1, 2], ring: Ring) -> None:
        if level == 1:
            self._wake_from_copy()
            return
        with self.arena.commit(0, self.arena.size):
            for start in range(0, self.arena.size, ring.buffer_size):
                part = self._copy.tensor[start : start + ring.buffer_size]
                with ring.buffer() as buffer:
                    buffer.tensor[: len(part)].copy_(part)
                    ring.send(buffer, 0, len(part), self.arena.address + start)
            ring.flush()

    def _wake_from_copy(self) -> None:
        with commit_from(self._driver, self.arena, self._copy, self.arena.size):
            pass

    def close(self) -> None:
        with ExitStack() as closing:
            closing.callback(self._copy.close)
            closing.callback(self.arena.close)
            card.finish()


def take_turns(models: list[Replayed], ring: Ring, rounds: int) -> list[int]:
    """Each sleeps and wakes in its turn, level by level, other memory being used meanwhile; free bytes after
    each round. Raises AssertionError where a graph gives other bits than at first."""
    free = []
    for number in range(rounds):
        model = models[number % len(models)]
        model.sleep()
        card.others()
        model.wake(1 if number // len(models) % 2 else 2, ring)
        for one in models:
            assert torch.equal(one.replay(), one.expected), f"round {number}"
        free.append(card.free())
    return free
