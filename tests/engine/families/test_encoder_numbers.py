"""Our encoders' vectors are those of transformers, for names of families and activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from tests.engine.conftest import OpenEngine
from tests.engine.encoders import make_encoder, reference_hidden
from tests.engine.harness import prompt

ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "camembert": ("Camembert", "Model", {"pad_token_id": 3}),
    "camembert-masked": ("Camembert", "ForMaskedLM", {}),
    "swish": ("Bert", "Model", {"hidden_act": "swish"}),
    "gelu_fast": ("Bert", "Model", {"hidden_act": "gelu_fast"}),
    "gelu_new": ("Roberta", "Model", {"hidden_act": "gelu_new"}),
    "relu": ("Roberta", "Model", {"hidden_act": "relu"}),
}


@pytest.mark.parametrize("name", ENCODERS)
async def test_vectors(tmp_path: Path, awake: OpenEngine, name: str) -> None:
    family, head, overrides = ENCODERS[name]
    directory = make_encoder(tmp_path, family, head=head, **overrides)
    ids = prompt(50)
    ours = torch.tensor((await (await awake(directory)).embed([ids]))[0])
    expected = normalize(reference_hidden(directory, ids).mean(0), dim=0)
    assert (ours - expected).abs().max() < 1e-5
