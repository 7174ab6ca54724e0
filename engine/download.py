"""Fetching a hub checkpoint without opening it."""

from __future__ import annotations

from engine.checkpoint import Checkpoint
from engine.hub import OnBytes, fetch_small_files, fetch_weights, local_directory
from engine.info import estimate_checkpoint, read_config
from engine.types import EngineOptions


def download_checkpoint(path: str, revision: str, on_bytes: OnBytes) -> str:
    """See ``engine.download``."""
    directory = local_directory(path)
    if directory is None:
        small = fetch_small_files(path, revision)
        read_config(Checkpoint(small))  # nobody wants the weights of what cannot be served
        directory = fetch_weights(path, small.name, on_bytes)
    estimate_checkpoint(str(directory), EngineOptions())  # raises when they are not whole
    return str(directory)
