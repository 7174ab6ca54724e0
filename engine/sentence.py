"""What a checkpoint's sentence-transformers files say: how the vectors of tokens become one of the text.

``modules.json`` lists the steps after the model: pooling, then maybe dense layers, then maybe normalisation.
Its prompts are not applied: they are for the caller to put before the text. No torch in here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.checkpoint import Checkpoint, Shard, read_shard
from engine.types import CheckpointError

_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Flags of older files, in the order in which several are joined."""

DENSE_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")

_FOLDER = re.compile(r"[0-9]+_[A-Za-z]+")
_ORDER = re.compile(r"Transformer,Pooling,(Dense,)*(Normalize,)?")


@dataclass(frozen=True, slots=True)
class DenseLayer:
    folder: str
    """Where its config and weights lie."""
    inputs: int
    outputs: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class SentenceConfig:
    """How an input's hidden states become its vector."""

    modes: tuple[str, ...]
    """Ways of pooling, whose results are joined."""
    dense: tuple[DenseLayer, ...] = ()
    normalize: bool = True
    max_tokens: int | None = None
    """Of an input."""
    lowercase: bool = False
    """Texts are lowercased before they are encoded."""

    def size(self, hidden_size: int) -> int:
        """Numbers of a vector."""
        return self.dense[-1].outputs if self.dense else hidden_size * len(self.modes)

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> SentenceConfig | None:
        """None for a checkpoint without such files. Raises CheckpointError."""
        modules = checkpoint.json_list("modules.json")
        if modules is None:
            return None
        try:
            kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
            folders = [str(module["path"]) for module in modules]
        except (KeyError, TypeError) as error:
            raise _unserved("modules.json is malformed") from error
        if not _ORDER.fullmatch("".join(f"{kind}," for kind in kinds)) or folders[0]:
            raise _unserved(f"modules.json: {', '.join(kinds)} in this order or place is not supported")
        for folder in folders[1:]:
            if not _FOLDER.fullmatch(folder):
                raise _unserved(f"modules.json: {folder!r} is no folder of a module")
        dense = (_dense(checkpoint, f) for kind, f in zip(kinds, folders, strict=True) if kind == "Dense")
        return cls(
            modes=_modes(checkpoint.json(f"{folders[1]}/config.json") or {}),
            dense=tuple(dense),
            normalize="Normalize" in kinds,
            **_text_limits(checkpoint),
        )


def dense_shards(checkpoint: Checkpoint, config: SentenceConfig) -> list[Shard]:
    """The files of the dense layers; tensors are named ``FOLDER/linear.weight``. Raises CheckpointError."""
    found = []
    for layer in config.dense:
        shard = read_shard(checkpoint.directory / layer.folder / "model.safetensors")
        tensors = {f"{layer.folder}/{name}": tensor for name, tensor in shard.tensors.items()}
        found.append(replace(shard, tensors=tensors))
    return found


def _modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The mean where nothing is said."""
    given = config.get("pooling_mode") or [mode for flag, mode in _OLD_MODES.items() if config.get(flag)]
    modes = (given,) if isinstance(given, str) else tuple(given) or ("mean",)
    for mode in modes:
        if mode not in _OLD_MODES.values():
            raise _unserved(f"pooling {mode!r} is not supported")
    return modes


def _dense(checkpoint: Checkpoint, folder: str) -> DenseLayer:
    config = checkpoint.json(f"{folder}/config.json") or {}
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in DENSE_ACTIVATIONS:
        raise _unserved(f"{folder}: activation {activation!r} is not supported")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise _unserved(f"{folder}: {key} {config[key]!r} is not supported")
    if config.get("use_residual"):
        raise _unserved(f"{folder}: use_residual is not supported")
    try:
        sizes = int(config["in_features"]), int(config["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unserved(f"{folder}: config.json is incomplete or malformed") from error
    return DenseLayer(folder, *sizes, bool(config.get("bias", True)), activation)


def _text_limits(checkpoint: Checkpoint) -> dict[str, Any]:
    """The file is named after the model: sentence_bert_config.json, sentence_roberta_config.json, ...; newer
    ones keep the length with the tokenizer."""
    paths = sorted(checkpoint.directory.glob("sentence_*_config.json"))
    config = (checkpoint.json(paths[0].name) or {}) if paths else {}
    length = config.get("max_seq_length") or checkpoint.tokenizer_config.get("model_max_length")
    known = isinstance(length, int) and length > 0
    return {"max_tokens": length if known else None, "lowercase": bool(config.get("do_lower_case"))}


def _unserved(message: str) -> CheckpointError:
    return CheckpointError(message, reason=message)
