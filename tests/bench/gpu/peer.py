"""What others make of the same, where they are installed: the checkpoint in plain ``transformers``, and
``torch_memory_saver``."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from tests.bench.gpu import card, saver
from tests.bench.gpu.checkpoints import checkpoint
from tests.bench.gpu.decoding import CONTEXT, MANY
from tests.bench.gpu.result import Result, read
from tests.bench.gpu.streams import random_prompt

FEW, TOKENS = 8, 72


def measure(result: Result, work: Path) -> None:
    beside_transformers(result, work)
    card.trim()
    saver.compare(result)


def beside_transformers(result: Result, work: Path) -> None:
    if find_spec("transformers") is None:
        result.note("there is no transformers here: nothing to compare with")
        return
    path = checkpoint(work, "8b", card.DEVICE)
    card.trim()
    model = load(result, path)
    prompts = [random_prompt(CONTEXT, i) for i in range(MANY)]
    rates = {}
    for name, generate in (("continuous", continuous), ("batch", batch)):
        try:
            rates[name] = rate(lambda tokens, made=generate: made(model, prompts, tokens))
        except Exception as error:
            result.failure(f"transformers_{name}", error)
            continue
        result.number(f"transformers_{name}_tokens_s", rates[name])
        ours = read(result.path.with_name("gpu-decode.json")).get("numbers", {}).get("64_answers_tokens_s")
        if ours:
            wanted = 3.0 if name == "continuous" else None
            result.number(f"64_answers_over_transformers_{name}", ours["value"] / rates[name], least=wanted)


def load(result: Result, path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    began = time.perf_counter()
    if find_spec("accelerate"):
        model = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.bfloat16, device_map="cuda")
    else:
        model = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.bfloat16).to(card.DEVICE)
    card.finish()
    result.number("transformers_from_pretrained_seconds", time.perf_counter() - began)
    ours = read(result.path.with_name("gpu-wake.json")).get("numbers", {})
    for name in ("light_wake_seconds", "open_and_wake_seconds"):
        if name in ours:
            result.number(f"our_{name}", ours[name]["value"])
    return model.eval()


def rate(generate: Any) -> float:
    """Tokens a second of all answers, by two runs of which only the lengths of answers differ."""
    took = []
    for tokens in (FEW, FEW, TOKENS):
        card.finish()
        began = time.perf_counter()
        generate(tokens)
        card.finish()
        took.append(time.perf_counter() - began)
    return MANY * (TOKENS - FEW) / (took[2] - took[1])


@torch.inference_mode()
def batch(model: Any, prompts: list[list[int]], tokens: int) -> None:
    ids = torch.tensor(prompts, device=card.DEVICE)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )


def continuous(model: Any, prompts: list[list[int]], tokens: int) -> None:
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    found = model.generate_batch(inputs=prompts, generation_config=config)
    made = [len(one.generated_tokens) for one in found.values()]
    if made != [tokens] * len(prompts):
        raise RuntimeError(f"answers of {sorted(set(made))} tokens, {len(made)} of them")
