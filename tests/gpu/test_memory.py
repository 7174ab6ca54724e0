"""Arenas on the device by themselves: graphs over them outlast whatever happens to their memory."""

from __future__ import annotations

import torch

from engine.cuda_graphs import CudaGraphs
from engine.memory.cuda import CudaArena, tensor_factory
from engine.memory.cuda_driver import CudaDriver, cuda_driver
from engine.memory.ring import Ring
from engine.memory.sizes import round_up
from engine.types import OutOfMemory
from tests.bench.gpu import card
from tests.gpu.replayed import Replayed, take_turns

MIB = 2**20
ROUNDS = 50
KEPT = 32 * MIB
"""What may be missing afterwards: torch keeps pieces of this size. A leak would be as large every round."""


def driver() -> CudaDriver:
    one = torch.ones(8, 2048, device=card.DEVICE, dtype=torch.bfloat16)
    torch.mm(one, one.T).tanh()  # torch's own of the context, and what products take once
    card.others()
    made = cuda_driver("cuda:0")
    made.make_current()
    return made


def test_graphs_replay_to_the_bit_after_50_sleeps() -> None:
    calls = driver()
    ring = Ring(calls, 4, 8 * MIB)
    recorder, make_tensor = CudaGraphs(card.DEVICE), tensor_factory(card.DEVICE)
    before = card.free()
    models = [
        Replayed(calls, make_tensor, recorder, layers=8, width=width, chunk=chunk * MIB, seed=seed)
        for seed, (width, chunk) in enumerate([(2048, 2), (2048, 16), (4096, 256)])
    ]
    free = take_turns(models, ring, ROUNDS)
    assert free[-1] >= free[5] - KEPT, free
    held = sum(model.arena.size for model in models)
    for model in models:
        model.sleep()
    assert card.free() >= free[-1] + held - KEPT, "what was unmapped is free"
    for model in models:
        model.close()
    ring.close()
    models.clear()
    card.trim()
    assert card.free() >= before - 4 * KEPT, "graphs share one pool, and torch keeps some"


def test_graphs_are_recorded_after_all_others_have_gone() -> None:
    driver()
    recorder = CudaGraphs(card.DEVICE)
    x = torch.ones(64, 64, device=card.DEVICE)
    out = torch.mm(x, x)
    for _ in range(3):
        graph = recorder.record(lambda: torch.mm(x, x, out=out))
        out.zero_()
        graph.replay()
        card.finish()
        assert int(out.min()) == 64
        assert recorder.held() > 0
        del graph
        card.trim()


def test_memory_that_runs_out_half_way_goes_back() -> None:
    calls = driver()
    arena = CudaArena(calls, 2**40, make_tensor=tensor_factory(card.DEVICE))
    before = card.free()
    try:
        with arena.commit(0, round_up(before + 2**30, arena.granularity)):
            raise AssertionError("there is more memory than there is")
    except OutOfMemory as error:
        assert error.available > 0
    assert arena.committed == 0
    assert card.free() >= before - KEPT
    with arena.commit(0, 2**30):
        arena.tensor[: 2**30].fill_(7)
    assert int(arena.tensor[2**30 - 1]) == 7
    arena.close()
    assert card.free() >= before - KEPT
