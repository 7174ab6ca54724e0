"""Checkpoints for the end-to-end tests, made once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.random_checkpoint import write_checkpoint


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small ones that answer in a moment, and two of 98 MiB that take their time."""
    root = tmp_path_factory.mktemp("checkpoints")
    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 4096}
    shapes = {"tiny-a": small, "tiny-b": small, "large-a": {}, "large-b": {}}
    return {
        name: write_checkpoint(root / name, "60m", seed=seed, **shape)
        for seed, (name, shape) in enumerate(shapes.items())
    }
