"""A hub checkpoint with its weights."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoint import Checkpoint
from engine.hub import OnBytes, fetch_small_files, fetch_weights, local_directory
from engine.info import estimate_checkpoint, read_config
from engine.types import CheckpointError, EngineOptions


def download_checkpoint(path: str, revision: str, on_bytes: OnBytes) -> str:
    """See ``engine.download``."""
    directory = local_directory(path)
    if directory is None:
        small = fetch_small_files(path, revision)
        read_config(Checkpoint(small))  # nobody wants the weights of what cannot be served
        directory = with_weights(path, small, on_bytes)
    estimate_checkpoint(str(directory), EngineOptions())  # raises when they are not whole
    return str(directory)


def with_weights(repo_id: str, small: Path, on_bytes: OnBytes) -> Path:
    """The directory, weights included, of the commit whose small files lie in ``small``. The hub is not even
    asked when they are all here. Raises CheckpointError."""
    try:
        estimate_checkpoint(str(small), EngineOptions())
    except CheckpointError:
        return fetch_weights(repo_id, small.name, on_bytes)
    return small
