"""The cold starts that a switch is compared with, each in a process of its own.

`python -m gateway.bench.cold_start PATH` is ours: import, open, read, first token.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import engine
from gateway.bench.first_token import first_token

_TRANSFORMERS = """
import json, sys, time
import torch, transformers
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
# Imports the modelling code, which from_pretrained would otherwise do within its own time.
transformers.AutoModelForCausalLM._model_mapping[type(config)]
started = time.perf_counter()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
loaded = time.perf_counter()
prompt = torch.arange(1, 17).unsqueeze(0)
model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=1, do_sample=False)
print(json.dumps({"load": loaded - started, "first_token": time.perf_counter() - loaded}))
"""


def ours(path: str) -> dict[str, float]:
    """Seconds from starting a new process to its first token, in ``total``."""
    return _timed([sys.executable, "-m", "gateway.bench.cold_start", path])


def transformers(path: str) -> dict[str, float] | str:
    """The same by transformers' ``from_pretrained``; or why there is no figure."""
    try:
        return _timed([sys.executable, "-c", _TRANSFORMERS, path])
    except subprocess.CalledProcessError as error:
        if "No module named 'transformers'" in error.stderr:
            return "not installed"
        return f"failed: {error.stderr.strip().splitlines()[-1]}"


def _timed(command: list[str]) -> dict[str, float]:
    started = time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    phases: dict[str, float] = json.loads(output.splitlines()[-1])
    return {**phases, "total": time.perf_counter() - started}


async def _start(path: str) -> dict[str, float]:
    started = time.perf_counter()
    model = await asyncio.to_thread(engine.open, path)
    opened = time.perf_counter()
    await model.load()
    await model.wake()
    awake = time.perf_counter()
    token = await first_token(model)
    await model.close()
    return {"open": opened - started, "load": awake - opened, "first_token": token}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_start(sys.argv[1]))) + "\n")
