"""What a model's parameters are, and where they lie in an arena. No torch in here: an estimate needs none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from engine.memory.sizes import round_up

_ALIGNMENT = 256


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor of the model: checkpoint tensors of these names and shapes, stacked by rows."""

    name: str
    sources: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stack."""
        rows = sum(shape[0] for _, shape in self.sources)
        return (rows, *self.sources[0][1][1:])


def lay_out(parameters: Iterable[Parameter], item_size: int) -> tuple[list[int], int]:
    """Where each begins, one after the other, and where the last ends, in bytes."""
    starts, end = [], 0
    for parameter in parameters:
        starts.append(round_up(end, _ALIGNMENT))
        end = starts[-1] + math.prod(parameter.shape) * item_size
    return starts, end
