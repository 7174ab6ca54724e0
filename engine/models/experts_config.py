"""Mixtures of experts as config.json describes them. No torch in here: an estimate needs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertNames:
    """What a family's files call the tensors of a mixture."""

    block: str
    gate: str
    up: str
    down: str


QWEN_EXPERTS = ExpertNames(block="mlp.", gate="gate_proj", up="up_proj", down="down_proj")
MIXTRAL_EXPERTS = ExpertNames(block="block_sparse_moe.", gate="w1", up="w3", down="w2")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    count: int
    per_token: int
    inner_size: int
    """Of each expert."""
    normalize: bool
    """The weights of a token's experts add up to 1."""
    shared_size: int | None
    """Of an expert that every token has, beside those chosen."""

    @property
    def fine(self) -> bool:
        """Whether even a large chunk of a prompt leaves each expert with few tokens."""
        return self.count >= 8 * self.per_token

    @classmethod
    def parse(cls, known: Mapping[str, Any]) -> ExpertsConfig | None:
        """``known``: config.json with its family's defaults; None for a dense family. Raises ValueError."""
        if "num_experts" not in known:
            return None
        shared = known.get("shared_expert_intermediate_size")
        parsed = cls(
            count=int(known["num_local_experts"] or known["num_experts"]),
            per_token=int(known["num_experts_per_tok"]),
            inner_size=int(known.get("moe_intermediate_size", known["intermediate_size"])),
            normalize=bool(known.get("norm_topk_prob", True)),
            shared_size=None if shared is None else int(shared),
        )
        if not 1 <= parsed.per_token <= parsed.count or parsed.inner_size < 1:
            raise ValueError(f"{parsed.per_token} of {parsed.count} experts of size {parsed.inner_size}")
        return parsed


def sparse_layers(known: Mapping[str, Any]) -> list[bool]:
    """Whether each layer has experts in place of one MLP."""
    if "num_experts" not in known:
        return [False] * int(known["num_hidden_layers"])
    dense, step = known.get("mlp_only_layers") or (), known.get("decoder_sparse_step", 1)
    return [
        index not in dense and (index + 1) % step == 0 for index in range(int(known["num_hidden_layers"]))
    ]
