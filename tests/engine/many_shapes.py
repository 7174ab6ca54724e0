"""A process that multiplies by many shapes, and prints by how many bytes it has grown."""

from __future__ import annotations

import psutil
import torch

from engine.device import get_device
from engine.linear import Linear
from engine.memory.cpu import trim_allocator


def held() -> int:
    trim_allocator()
    return int(psutil.Process().memory_info().rss)


get_device("cpu")
layers = [Linear(torch.randn(64 * rows, 256).bfloat16()) for rows in range(1, 25)]
x = torch.randn(16, 256).bfloat16()
layers[0](x, generated=True)
before = held()
for layer in layers:
    for count in range(2, 17):
        layer(x[:count], generated=True)
print(held() - before)
