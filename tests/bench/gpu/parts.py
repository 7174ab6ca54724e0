"""The parts of `make gpu`, the most important first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SHARED = Path("/dev/shm")
"""Where files are memory."""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    module: str
    """Has ``measure(result, work)``."""
    seconds: int
    """At most."""
    shows: str


PARTS = (
    Part(
        "memory",
        "tests.gpu.memory_part",
        75,
        "graphs and whole models after 50 sleeps at both levels, bit for bit, and nothing leaked",
    ),
    Part(
        "kernels",
        "tests.gpu.kernels_part",
        110,
        "Triton's kernels compiled against torch's operations, in bfloat16 too",
    ),
    Part(
        "wake",
        "tests.bench.gpu.waking",
        100,
        "16 GB: wakes against the link and the disk, sleeps, the first token after, what a sleeper keeps",
    ),
    Part(
        "decode",
        "tests.bench.gpu.decoding",
        90,
        "8B: answers against the card's memory bandwidth, 64 at a time, prompts against its products",
    ),
    Part("beside", "tests.bench.gpu.beside", 50, "streams of one model while another one wakes beside them"),
    Part(
        "copies",
        "tests.bench.gpu.copies",
        60,
        "what chunk, ring and buffer sizes cost, locking memory, and which calls wait for other streams",
    ),
    Part("peer", "tests.bench.gpu.peer", 110, "others: the 8B in transformers, torch_memory_saver"),
    Part("large", "tests.bench.gpu.large", 75, "28 GB: the shape of a 14B, asleep and awake"),
)
BY_NAME = {part.name: part for part in PARTS}
