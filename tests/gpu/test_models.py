"""Whole engines on the device: the same answers to the bit through sleeps of both levels, in turn."""

from __future__ import annotations

from pathlib import Path

import engine
from engine import Engine, EngineOptions, Level
from tests.bench.gpu import card
from tests.bench.gpu.checkpoints import checkpoint
from tests.bench.gpu.streams import Answer, answer, open_engine, random_prompt

ROUNDS = 50
KEPT = 32 * 2**20
CLOSE = 1e-3
"""Between log probabilities of float32 that were summed in other orders."""


async def said(model: Engine) -> tuple[list[int], list[tuple[tuple[int, float], ...]]]:
    """Alone, so that it is the same steps every time: a prompt, then replays of a graph."""
    found = await answer(model, random_prompt(200, "round"), 12, logprobs=20)
    return found.token_ids, found.logprobs


async def test_models_answer_to_the_bit_after_50_sleeps_in_turn(tmp_path: Path) -> None:
    paths = [
        checkpoint(tmp_path, "60m", card.DEVICE, disk=True),
        checkpoint(tmp_path, "60m", card.DEVICE, disk=True, seed=1),
        checkpoint(tmp_path, "0.6b", card.DEVICE, disk=True),
    ]
    models = [open_engine(path) for path in paths]
    expected = []
    for model in models:
        await model.wake()
        expected.append(await said(model))
    assert expected[0] != expected[1]
    free = []
    for number in range(ROUNDS):
        index = number % len(models)
        level: Level = 1 if number // len(models) % 2 else 2
        await models[index].sleep(level)
        card.others()
        await models[index].wake()
        assert await said(models[index]) == expected[index], (number, level)
        other = (index + 1) % len(models)
        assert await said(models[other]) == expected[other], (number, "another, awake all the time")
        card.trim()
        free.append(card.free())
    assert free[-1] >= free[2 * len(models)] - KEPT, free
    for model in models:
        await model.sleep(1)
    card.trim()
    asleep = card.free()
    for model in models:
        await model.wake()
        await said(model)
    for model in models:
        await model.sleep(2)
    card.trim()
    assert card.free() >= asleep - KEPT, "as free as before"
    for model in models:
        await model.close()


async def test_the_same_answers_as_on_a_cpu(tmp_path: Path) -> None:
    """In float32. A prompt of several chunks, and a short one beside it."""
    path = checkpoint(tmp_path, "60m", card.DEVICE, disk=True, num_hidden_layers=4)
    found: list[list[Answer]] = []
    for device in ("cuda", "cpu"):
        model = engine.open(str(path), device, EngineOptions(dtype="float32", prefix_cache=False))
        await model.wake()
        found.append(
            [await answer(model, random_prompt(length, length), 24, logprobs=5) for length in (700, 3)]
        )
        await model.close()
    for there, here in zip(*found, strict=True):
        for ours, theirs in zip(there.logprobs, here.logprobs, strict=True):
            if [token for token, _ in ours] != [token for token, _ in theirs]:
                assert abs(ours[0][1] - theirs[0][1]) < CLOSE, "as likely as the other, within rounding"
                break
            for (_, one), (_, other) in zip(ours, theirs, strict=True):
                assert abs(one - other) < CLOSE
        assert there.token_ids[:4] == here.token_ids[:4]
