"""A process that multiplies by many shapes, and prints by how many bytes it has grown."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from engine.devices import get_device
from engine.linear import Linear
from engine.memory.cpu import trim_allocator


def held() -> int:
    trim_allocator()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


get_device("cpu")
layers = [Linear(torch.randn(64 * rows, 256).bfloat16()) for rows in range(1, 25)]
x = torch.randn(16, 256).bfloat16()
layers[0]._multiply(x)
before = held()
for layer in layers:
    for count in range(2, 17):
        layer._multiply(x[:count])
print(held() - before)
