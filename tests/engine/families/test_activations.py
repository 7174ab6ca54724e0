"""Each activation that a config may name is transformers' function of that name."""

from __future__ import annotations

import pytest
import torch
from transformers.activations import ACT2FN

from engine.models.activations import FUNCTIONS
from engine.models.encoder_config import ACTIVATIONS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_references(name: str) -> None:
    x = torch.linspace(-12, 12, 20_001)
    assert (FUNCTIONS[name](x) - ACT2FN[name](x)).abs().max() < 1e-6


def test_every_name_has_a_function() -> None:
    assert {*ACTIVATIONS} == {*FUNCTIONS}
