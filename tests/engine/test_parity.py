"""Our logits are those of transformers, for every shape, dialect and layout of file that is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.checkpoints import make_checkpoint
from tests.engine.conftest import OpenStepper
from tests.engine.families.shapes import LINEAR, LLAMA3, LONGROPE
from tests.engine.harness import Answer, edit_json, greedy, prompt
from tests.engine.reference import reference, reference_logits

FLOAT32_LIMIT = 1e-4


def assert_parity(directory: Path, prompt_ids: list[int], answer: Answer, limit: float) -> None:
    """Every step's logits, the prompt's and the decoded tokens', against one pass of the reference."""
    whole = reference_logits(directory, prompt_ids + answer.token_ids)
    expected = whole[len(prompt_ids) - 1 : -1]
    difference = (torch.stack(answer.logits) - expected).abs().max().item()
    assert difference < limit, f"logits differ by {difference:.2e}"
    assert expected.std() > 0.1, "a reference this flat would hide any fault"


SHAPES: dict[str, dict[str, Any]] = {
    "llama-grouped": {},
    "llama-many-heads": {"num_key_value_heads": 6},
    "llama-one-kv-head": {"num_key_value_heads": 1},
    "llama-head-size-given": {"head_dim": 14},
    "llama-tied": {"tie_word_embeddings": True},
    "llama-biases": {"attention_bias": True, "mlp_bias": True},
    "llama-linear-rope": {"rope_parameters": LINEAR},
    "llama-llama3-rope": {"rope_parameters": LLAMA3},
    "llama-theta-and-eps": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 77.0},
        "rms_norm_eps": 0.1,
    },
    "qwen3-plain": {},
    "qwen3-tied": {"tie_word_embeddings": True, "num_key_value_heads": 3},
    "qwen3-biases": {"attention_bias": True},
    "qwen3-head-size": {"head_dim": 6, "rms_norm_eps": 1e-3},
    "qwen3-linear-rope": {"rope_parameters": LINEAR},
}


@pytest.mark.parametrize("name", SHAPES)
async def test_prefill_and_decode_of_every_shape(tmp_path: Path, stepper: OpenStepper, name: str) -> None:
    directory = make_checkpoint(tmp_path, name.partition("-")[0], **SHAPES[name])
    ids = prompt(90)
    assert_parity(directory, ids, stepper(directory).answer(ids, greedy(8)), FLOAT32_LIMIT)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 255, 256, 257, 258, 400, 511])
async def test_prompts_around_the_borders_of_blocks_and_chunks(
    llama: Path, stepper: OpenStepper, length: int
) -> None:
    ids = prompt(length, seed=length)
    answer = stepper(llama, chunk=256).answer(ids, greedy(min(3, 512 - length)))
    assert_parity(llama, ids, answer, FLOAT32_LIMIT)


async def test_decoding_across_a_block(llama: Path, stepper: OpenStepper) -> None:
    ids = prompt(5)
    assert_parity(llama, ids, stepper(llama).answer(ids, greedy(40)), FLOAT32_LIMIT)


async def test_prompts_that_begin_alike_on_both_sides_of_longropes_border(
    tmp_path: Path, stepper: OpenStepper
) -> None:
    """The longer one cannot use the keys of the shorter, whose rotations are others."""
    shape = {"rope_parameters": LONGROPE, "original_max_position_embeddings": 48}
    directory = make_checkpoint(tmp_path, "phi3", **shape)
    run = stepper(directory, chunk=32)
    for length in (40, 90, 90, 40):
        ids = prompt(90)[:length]
        assert_parity(directory, ids, run.answer(ids, greedy(4)), FLOAT32_LIMIT)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
async def test_a_batch_of_unequal_lengths_that_join_between_steps(
    tmp_path: Path, stepper: OpenStepper, family: str
) -> None:
    directory = make_checkpoint(tmp_path, family)
    run = stepper(directory, chunk=256)
    prompts = [prompt(length, seed=length) for length in (3, 300, 17, 64, 130, 1, 40)]
    sequences = []
    for index, ids in enumerate(prompts):
        sequences.append(run.add(ids, greedy(10 + 3 * index)))
        run.step()
        run.step()
    run.run()
    assert max(len(step) for step in run.log) >= 4, "they never ran together"
    for ids, sequence in zip(prompts, sequences, strict=True):
        assert_parity(directory, ids, run.answers[sequence], FLOAT32_LIMIT)


async def test_a_config_as_old_as_llama_1(tmp_path: Path, stepper: OpenStepper) -> None:
    """No rope, no KV heads, no head size, no dtype: all by default."""

    def strip(config: dict[str, Any]) -> None:
        for key in (
            "rope_parameters",
            "num_key_value_heads",
            "head_dim",
            "dtype",
            "attention_bias",
            "mlp_bias",
        ):
            config.pop(key, None)

    directory = make_checkpoint(tmp_path, num_key_value_heads=6)
    edit_json(directory / "config.json", strip)
    ids = prompt(50)
    assert_parity(directory, ids, stepper(directory).answer(ids, greedy(4)), FLOAT32_LIMIT)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
async def test_sharded_files_hold_the_same_model(tmp_path: Path, stepper: OpenStepper, family: str) -> None:
    whole = make_checkpoint(tmp_path / "whole", family)
    sharded = make_checkpoint(tmp_path / "sharded", family, max_shard_size="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 3
    ids = prompt(40)
    answers = [stepper(path).answer(ids, greedy(5)) for path in (whole, sharded)]
    assert torch.equal(*(torch.stack(answer.logits) for answer in answers))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
async def test_bfloat16_is_as_near_as_the_reference_is_to_itself(
    tmp_path: Path, stepper: OpenStepper, family: str
) -> None:
    directory = make_checkpoint(tmp_path, family, torch.bfloat16)
    ids = prompt(200)
    answer = stepper(directory).answer(ids, greedy(20))
    whole = ids + answer.token_ids
    rows = slice(len(ids) - 1, -1)
    sdpa, eager = (
        reference_logits(directory, whole, torch.bfloat16, attention)[rows] for attention in ("sdpa", "eager")
    )
    own = (sdpa - eager).abs()
    ours = (torch.stack(answer.logits) - sdpa).abs()
    assert ours.mean() <= 2 * own.mean()
    assert ours.max() <= 3 * own.max()


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("served", ["bfloat16", "float16", "float32"])
async def test_any_stored_dtype_is_served_as_any_other(
    tmp_path: Path, stepper: OpenStepper, stored: str, served: str
) -> None:
    """Converted on reading just as the reference converts, so what differs is only the arithmetic."""
    directory = make_checkpoint(tmp_path, dtype=getattr(torch, stored))
    run = stepper(directory, dtype=served)
    views = run.model.runner.decoder._weights
    tensors = dict(reference(directory, getattr(torch, served)).named_parameters())
    assert torch.equal(views["embed.weight"], tensors["model.embed_tokens.weight"])
    assert torch.equal(views["1.down.weight"], tensors["model.layers.1.mlp.down_proj.weight"])
    fused = [tensors[f"model.layers.2.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(views["2.qkv.weight"], torch.cat(fused))
    if served == "float32":
        ids = prompt(30)
        assert_parity(directory, ids, run.answer(ids, greedy(4)), FLOAT32_LIMIT)
    else:
        assert run.answer(prompt(30), greedy(4)).logits[0].isfinite().all()


async def test_a_tensor_larger_than_one_read_is_converted_whole(
    tmp_path: Path, stepper: OpenStepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of 4 KiB instead of 16 MiB: every matrix spans many of them, and none ends on a border."""
    directory = make_checkpoint(tmp_path, dtype=torch.bfloat16)
    expected = [
        stepper(directory, dtype=dtype).answer(prompt(30), greedy(3)) for dtype in ("auto", "float32")
    ]
    monkeypatch.setattr("engine.reader._PIECE", 4096)
    got = [stepper(directory, dtype=dtype).answer(prompt(30), greedy(3)) for dtype in ("auto", "float32")]
    for one, other in zip(expected, got, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))
