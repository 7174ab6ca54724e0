"""The engine needs torch, safetensors, tokenizers and numpy; all else is for who asks for more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFUSED = [
    "apscheduler",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "hypothesis",
    "jinja2",
    "litestar",
    "llguidance",
    "msgspec",
    "prometheus_client",
    "pytest",
    "rich",
    "tqdm",
    "transformers",
    "uvicorn",
    "yaml",
]
SCRIPT = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {REFUSED}:
            raise ImportError(name + " is not here")

sys.meta_path.insert(0, Refuse())

import asyncio
from pathlib import Path
import torch
import engine
from tests.bench.gpu import beside, copies, decoding, large, peer, streams, waking
from tests.bench.gpu.checkpoints import checkpoint
from tests.bench.random_checkpoint import SHAPES
from tests.engine.kernels import paging
from tests.gpu import memory_part

SHAPES["60m"] |= {{"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 400}}

async def main():
    path = checkpoint(Path(sys.argv[1]), "60m", torch.device("cpu"), disk=True)
    model = engine.open(str(path), "cpu")
    await model.wake()
    for level in (1, 2):
        await model.sleep(level)
        await model.wake()
        print(len((await streams.answer(model, [1, 2, 3], 5, logprobs=2)).token_ids))
    await model.close()
    try:
        model.compile(engine.Constraint(kind="json"))
    except ImportError as error:
        print(error)

asyncio.run(main())
"""


def test_a_checkpoint_is_served_with_little_else_installed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["5", "5", "llguidance is not here"], done.stderr
