"""How the rows of a pass attend, as tensors that kernels read: block tables, slots, extents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

TABLE_WIDTH: Final = 16
"""Tables are multiples of it: Triton compiles once more for others."""


@dataclass(frozen=True, slots=True)
class TablePlan:
    generated: bool
    """The rows are tokens of answers, each with a table of its own, else of prompts."""
    slots: torch.Tensor
    """Where each row's own key and value go, int64 [rows]; -1 for a row that is none."""
    tables: torch.Tensor
    """Block tables, int32 [rows or sequences, blocks]."""
    extents: torch.Tensor
    """Of generated rows how many positions there are up to each, itself included, int64 [rows]: 0 for a row
    that is none. Of prompts their tiles, int32 [tiles, 4]."""
