"""Checkpoints on the Hugging Face hub: small files first, weights when the model is first needed."""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.hub_errors import download_failed, network_failure
from engine.types import CheckpointError

_SMALL = ["*.json", "*.jinja", "tokenizer.model"]
_WEIGHTS = ["model*.safetensors", "[0-9]*_*/model.safetensors"]
_ELSEWHERE = ["[!0-9]*/*", "*/*/*"]
"""Not so the numbered folders of sentence-transformers' modules."""

OnBytes = Callable[[int, int], None]
"""Told the bytes done and the bytes in all, whenever they change."""


def local_directory(path: str) -> Path | None:
    """``path`` as a directory that exists; None when it can only be a hub id. Raises CheckpointError."""
    directory = Path(path)
    with suppress(RuntimeError):  # nobody of that name
        directory = directory.expanduser()
    if directory.is_dir():
        return directory
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise CheckpointError(f"{path}: no such directory", reason="the checkpoint's directory is missing")
    return None


def cached_directory(repo_id: str, revision: str) -> Path | None:
    """Where a hub checkpoint's config already lies on disk; None when it was never fetched."""
    from huggingface_hub import try_to_load_from_cache

    if not _is_valid(repo_id):
        return None
    found = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def cached_repositories() -> Iterator[str]:
    """Ids of all of which anything lies on disk; the directory of one that has no owner, as that is no id
    here."""
    for directory in _cached():
        repo_id = directory.name.removeprefix("models--").replace("--", "/")
        if not _is_valid(repo_id):
            continue
        if "/" in repo_id:
            yield repo_id
        elif found := cached_directory(repo_id, "main"):
            yield str(found)


def only_gguf(repo_id: str) -> bool:
    """Whether what lies on disk of its weights are GGUF files, which cannot be served."""
    name = f"models--{repo_id.replace('/', '--')}"
    files = (file for place in _cached() if place.name == name for file in place.glob("snapshots/**/*"))
    kinds = {file.suffix for file in files}
    return ".gguf" in kinds and ".safetensors" not in kinds


def _cached() -> list[Path]:
    from huggingface_hub import constants

    return sorted(Path(constants.HF_HUB_CACHE).expanduser().glob("models--*"))


def _is_valid(repo_id: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return False
    return True


def fetch_small_files(repo_id: str, revision: str) -> Path:
    """Config, tokenizer and template, so that requests can be checked before any weight is here. Those of
    before when the hub cannot be asked whether there are newer ones."""
    before = cached_directory(repo_id, revision)
    try:
        return Path(_snapshot(repo_id, revision, _SMALL, _reporter(None)))
    except CheckpointError as error:
        if before and error.__cause__ and network_failure(error.__cause__):
            with suppress(CheckpointError):  # they are not whole
                return Path(_snapshot(repo_id, revision, _SMALL, _reporter(None), local_files_only=True))
        raise


def fetch_weights(repo_id: str, revision: str, on_bytes: OnBytes) -> Path:
    """The checkpoint's safetensors files; those already here are not fetched again."""
    files = _snapshot(repo_id, revision, _WEIGHTS, _reporter(None), dry_run=True)
    size = sum(file.file_size or 0 for file in files if file.will_download)
    _check_space(repo_id, size)
    return Path(_snapshot(repo_id, revision, _WEIGHTS, _reporter(on_bytes, size)))


def _check_space(repo_id: str, size: int) -> None:
    """Before hours of downloading rather than after."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE).expanduser()
    with suppress(OSError):
        free = shutil.disk_usage(place).free
        if size > free:
            raise CheckpointError(
                f"{repo_id}: {-(-size // 2**20)} MiB to download, {free // 2**20} MiB free in {place}; "
                "HF_HOME names another place",
                reason=f"there is no space for {repo_id} on the server's disk",
            )


def _snapshot(repo_id: str, revision: str, patterns: list[str], reporter: Any, **options: Any) -> Any:
    """See huggingface_hub's ``snapshot_download``. Raises CheckpointError from whatever that raises."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.logging import set_verbosity

    if "HF_HUB_VERBOSITY" not in os.environ:
        set_verbosity(logging.ERROR)  # what it warns of is told by its error in the end, or does not matter
    try:
        return snapshot_download(
            repo_id,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=_ELSEWHERE,
            tqdm_class=reporter,
            **options,
        )
    except Exception as error:
        raise download_failed(repo_id, revision, error) from error


def _reporter(on_bytes: OnBytes | None, size: int = 0) -> Any:
    """A progress bar class that draws nothing and tells the bytes of all files together. Its own sum grows
    with each file that begins, so that ``size`` may know better."""
    from tqdm.auto import tqdm as bar  # a dependency of huggingface_hub

    base: Any = bar

    bars: list[Any] = []

    class Reporter(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.update(disable=False, file=io.StringIO())  # it ends with a line feed, drawn or not
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs)
            if self.unit == "B":
                bars.append(self)

        def display(self, *args: Any, **kwargs: Any) -> None:
            """Nothing: progress is told, not drawn."""

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            if on_bytes is not None and bars:
                # One bar or two for the same bytes: from the network, and to the disk.
                total = max(size, *(bar.total or 0 for bar in bars))
                on_bytes(int(max(bar.n for bar in bars)), int(total))
            return drawn

    return Reporter
