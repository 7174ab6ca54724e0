"""What torch keeps of a CUDA device's memory for its next tensors, though nothing is in it."""

from __future__ import annotations

import sys
from typing import Any


def kept_by_torch(ordinal: int) -> int:
    """Bytes that ``give_back`` would give back, but for what graphs share. Imports no torch."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    kept: int = torch.cuda.memory_reserved(ordinal) - torch.cuda.memory_allocated(ordinal)
    return kept


def give_back() -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
