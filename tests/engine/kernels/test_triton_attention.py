"""The attention of CUDA devices behind the interface: plans at fixed addresses, and whole models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.attention import AttentionSpec, attention_for
from engine.attention.interface import CpuAttention
from engine.attention.triton import TritonAttention
from engine.batch import Batch
from engine.decode_inputs import DecodeInputs
from engine.kernels.rotate_write import rotate_write
from engine.models.operations import TorchOperations
from engine.models.triton_operations import TritonOperations
from tests.engine.checkpoints import make_checkpoint
from tests.engine.conftest import OpenStepper
from tests.engine.harness import greedy
from tests.engine.kernels.paging import make_scene

CPU = torch.device("cpu")
SPEC = AttentionSpec(0.2, window=50)


def test_the_device_chooses() -> None:
    assert isinstance(attention_for(CPU), CpuAttention)
    assert isinstance(attention_for(torch.device("cuda")), TritonAttention)


def test_inputs_at_fixed_addresses_become_one_step_after_another(device: torch.device) -> None:
    attention = TritonAttention(device)
    scene = make_scene((2, 1, 32), torch.float32, [33, 17, 300])
    layer = (scene.layer[0].to(device), scene.layer[1].to(device))
    inputs = DecodeInputs(4, 20, device)
    fixed = inputs.plan(4)
    queries = torch.full((4, 2, 32), torch.nan, device=device)
    for step, rows in enumerate(([0, 1, 2], [2, 0], [1])):
        batch = Batch()
        for first, count, table in (scene.spans[row] for row in rows):
            batch.add([7] * count, first, first, table)
        inputs.fill(batch, 4, [(0.0,) * 5] * len(rows))
        plan = attention.plan(batch.spans, generated=True)
        queries[: len(rows)] = scene.queries[rows].to(device)
        found = attention.attend(fixed, layer, queries, SPEC)
        assert torch.equal(found[: len(rows)], attention.attend(plan, layer, queries[: len(rows)], SPEC))
        assert not found[len(rows) :].any()
        untouched = [cache.clone() for cache in layer]
        fresh = torch.full((4, 2 + 1 + 1, 32), 2.0 * step, device=device)
        fresh[:, 3] += 1
        rotate_write(fresh, None, None, fixed.slots, layer, torch.empty(4, 2, 32, device=device))
        for cache, before, value in zip(layer, untouched, (2 * step, 2 * step + 1), strict=True):
            before.flatten(0, 1)[plan.slots] = value
            torch.testing.assert_close(cache, before, equal_nan=True)
            cache.copy_(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the model is the CPU's, and the kernels are compiled")
@pytest.mark.parametrize("family", ["gemma2", "qwen3", "olmo2"])
async def test_a_model_answers_as_with_the_cpus(
    family: str, tmp_path: Path, stepper: OpenStepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts in chunks beside others, then token by token; the window is shorter than they are."""
    directory = make_checkpoint(tmp_path, family, num_hidden_layers=2, sliding_window=9)
    answers = []
    for attention, operations in ((CpuAttention, TorchOperations), (TritonAttention, TritonOperations)):
        monkeypatch.setattr("engine.models.decoder.attention_for", attention)
        monkeypatch.setattr(
            "engine.models.decoder.operations_for", lambda config, _, made=operations: made(config)
        )
        run = stepper(directory, chunk=16)
        prompts = [run.add(ids, greedy(2)) for ids in (list(range(5, 24)), [7, 8])]
        run.run()
        answers.append([run.answers[prompt] for prompt in prompts])
    for expected, found in zip(*answers, strict=True):
        assert found.token_ids == expected.token_ids
        for ours, theirs in zip(found.logits, expected.logits, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
