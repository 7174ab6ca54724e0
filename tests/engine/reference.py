"""transformers' own models, asked for logits."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


@functools.lru_cache(maxsize=2)
def reference(directory: Path, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Any:
    """transformers' own model."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation=attention)


@torch.inference_mode()
def reference_logits(
    directory: Path,
    ids: list[int],
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    *,
    prompt_length: int | None = None,
) -> torch.Tensor:
    """transformers' logits at every position, float32 [tokens, vocabulary]: in one pass, or the tokens behind
    a prompt one by one through its cache."""
    model = reference(directory, dtype, attention)
    if prompt_length is None:
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0].float()
        return logits
    answer = model(torch.tensor([ids[:prompt_length]]), use_cache=True)
    parts = [answer.logits[0]]
    for token in ids[prompt_length:]:
        answer = model(torch.tensor([[token]]), past_key_values=answer.past_key_values, use_cache=True)
        parts.append(answer.logits[0])
    return torch.cat(parts).float()
