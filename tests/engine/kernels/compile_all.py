"""Run apart, without the interpreter: compile every kernel for a card that need not be there.

Launchers are called as on the device, with tensors of the CPU, but a launch only compiles. Printed is a line
a kernel: its name, its bytes of shared memory, and those that each thread keeps beside its registers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from engine.attention import AttentionSpec
from engine.attention.triton import TritonAttention
from engine.kernels.choose import choose
from engine.kernels.gated import gated
from engine.kernels.rms_norm import add_rms_norm, rms_norm
from engine.kernels.rotate_write import rotate_write

CPU = torch.device("cpu")


class NoCard:
    """A driver that knows what to compile for."""

    def __init__(self, architecture: int) -> None:
        self._target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(kernel: JITFunction, grid: Any) -> Callable[..., None]:
    def launch(*args: Any, **options: Any) -> None:
        made = kernel.run(*args, grid=grid, warmup=True, **options)
        print(kernel.fn.__name__, made.metadata.shared, stack(made.asm["cubin"]))

    return launch


def stack(cubin: bytes) -> int:
    """Where registers go that there are too few of. The intermediate code does not tell yet."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sum(map(int, re.findall(r"STACK:(\d+)", told)))


def attention(shape: tuple[int, int, int], dtype: torch.dtype, spec: AttentionSpec) -> None:
    heads, kv_heads, size = shape
    layer = (torch.zeros(4, 16, kv_heads, size, dtype=dtype), torch.zeros(4, 16, kv_heads, size, dtype=dtype))
    mixed = torch.zeros(2, heads + 2 * kv_heads, size, dtype=dtype)
    attend = TritonAttention(CPU)
    for generated in (False, True):
        plan = attend.plan([(3, 1, [0]), (20, 1, [1, 2])], generated=generated)
        attend.attend(plan, layer, mixed[:, :heads], spec)
    cos, weight = torch.zeros(2, 1, size, dtype=dtype), torch.zeros(size, dtype=dtype)
    norm = (weight, weight, 1e-6, "rounded")
    rotate_write(mixed, (cos, cos), norm, plan.slots, layer, torch.zeros(2, heads, size, dtype=dtype))


def rows(dtype: torch.dtype) -> None:
    x, weight = torch.zeros(2, 4096, dtype=dtype), torch.zeros(4096, dtype=dtype)
    rms_norm(x, weight, 1e-6, "wide", x)
    add_rms_norm(x, x, 0.22, weight, 1e-6, "one_plus", x, x)
    for activation in ("silu", "gelu", "gelu_new", "relu"):
        gated(x, activation, x[:, :2048])
    choose(torch.zeros(2, 152_000), torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))


if __name__ == "__main__":
    driver.set_active(NoCard(int(sys.argv[1])))
    JITFunction.__getitem__ = compiled
    attention((32, 8, 128), torch.bfloat16, AttentionSpec(0.1))
    if sys.argv[2:] == ["more"]:
        attention((8, 4, 256), torch.bfloat16, AttentionSpec(0.1, window=4096, softcap=50.0))
        attention((14, 2, 64), torch.float16, AttentionSpec(0.1))
        attention((4, 2, 128), torch.float32, AttentionSpec(0.1))
    rows(torch.bfloat16)
