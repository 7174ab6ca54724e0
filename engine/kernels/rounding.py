"""Where a normed number is rounded: the three ways of ``Family.norm_weight``."""

from __future__ import annotations

from typing import Literal

import triton
import triton.language as tl

NormWeight = Literal["rounded", "wide", "one_plus"]


@triton.jit
def weighed(normed: tl.tensor, weight: tl.tensor, dtype: tl.constexpr, KIND: tl.constexpr) -> tl.tensor:
    """``normed`` in float32, times the weight, in ``dtype``."""
    wide = weight.to(tl.float32)
    if KIND == "rounded":
        normed = normed.to(dtype).to(tl.float32)
    if KIND == "one_plus":
        wide = 1 + wide
    return (normed * wide).to(dtype)
