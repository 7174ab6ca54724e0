"""The families of checkpoints that the decoder serves: one short entry each.

To add a family whose layers are those of the decoder, add an entry that says where it differs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    name: str
    qk_norm: bool = False
    """An RMS norm over each head of queries and keys, before the rotation."""


FAMILIES = {
    "LlamaForCausalLM": Family(name="llama"),
    "Qwen3ForCausalLM": Family(name="qwen3", qk_norm=True),
}
