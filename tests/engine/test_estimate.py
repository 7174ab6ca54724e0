"""What an estimate says that a model needs is what it then holds, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import engine
import engine.demo
from engine.embedding.body import EncoderBody
from engine.engine import TorchEngine
from engine.model import Model
from engine.types import DType
from tests.engine.checkpoints import make_checkpoint
from tests.engine.encoders import make_encoder, minilm, write_modules
from tests.engine.families.shapes import SHAPES

DTYPES: list[DType] = ["float32", "bfloat16", "float16"]
DEMO = Path(engine.demo.__file__).parent


async def is_exact(path: Path, **options: Any) -> None:
    """Before it was ever loaded, and from then on in every state."""
    given = engine.EngineOptions(**options)
    estimate = engine.estimate(str(path), given)
    assert estimate is not None
    made = engine.open(str(path), "cpu", given)
    assert isinstance(made, TorchEngine)
    assert engine.max_model_len(str(path), given) == estimate.max_model_len == made.info.max_model_len

    def needed() -> int:
        now = made.footprint()
        return now.device + now.to_wake

    try:
        found = [needed()]
        await made.load()
        assert made.footprint().residue == held_beside(made)
        found.append(needed())
        await made.wake()
        assert made.footprint().to_wake == 0
        found.append(needed())
        for level in (1, 2):
            await made.sleep(level)
            found.append(needed())
        assert set(found) == {estimate.least_bytes}
    finally:
        await made.close()


def held_beside(made: TorchEngine) -> int:
    """Bytes of the tensors that a decoder holds beside weights and KV."""
    model = made._model
    assert model is not None
    body = model.runner if isinstance(model, Model) else model.body
    if isinstance(body, EncoderBody):
        return 0
    held = [one for rope in body.decoder._ropes.values() for one in vars(rope).values()]
    return sum(one.nbytes for one in held if isinstance(one, torch.Tensor))


@pytest.mark.parametrize("name", SHAPES)
async def test_a_decoder_of_every_family(tmp_path: Path, name: str) -> None:
    family, overrides = SHAPES[name]
    directory = make_checkpoint(tmp_path, family, torch.bfloat16, **overrides)
    await is_exact(directory, dtype=DTYPES[len(name) % 3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["demo-a", "demo-b"])
async def test_a_demo_model_in_any_dtype(name: str, dtype: DType) -> None:
    await is_exact(DEMO / name, dtype=dtype)


async def test_chunks_of_kv_that_are_larger_than_the_least(tmp_path: Path) -> None:
    directory = make_checkpoint(
        tmp_path, "mistral", num_hidden_layers=5, num_attention_heads=9, num_key_value_heads=9, head_dim=74
    )
    await is_exact(directory)
    await is_exact(directory, kv_limit=0, max_model_len=16, max_running=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["Bert", "XLMRoberta", "DistilBert", "MPNet"])
async def test_an_encoder(tmp_path: Path, family: str, dtype: DType) -> None:
    await is_exact(make_encoder(tmp_path, family, head="ForMaskedLM"), dtype=dtype)


async def test_a_real_encoder() -> None:
    await is_exact(minilm())


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
async def test_layers_behind_the_pooling(tmp_path: Path, kind: str) -> None:
    directory = make_encoder(tmp_path) if kind == "encoder" else make_checkpoint(tmp_path, "qwen3")
    size = 14_000
    """Numbers enough for another step of memory."""
    dense = {"in_features": 48, "out_features": size}
    write_modules(directory, ("Pooling", {"pooling_mode": "mean"}), ("Dense", dense))
    weights = {"linear.weight": torch.zeros(size, 48), "linear.bias": torch.zeros(size)}
    save_file(weights, directory / "2_Dense" / "model.safetensors")
    await is_exact(directory)
