"""Answers and prompts of an 8B against what the card can do: each token reads every weight, each prompt is
products."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median

from engine import Engine
from engine.models.config import ModelConfig
from tests.bench.gpu import card
from tests.bench.gpu.checkpoints import checkpoint, parsed
from tests.bench.gpu.result import Result
from tests.bench.gpu.streams import (
    answer,
    answers,
    attempt,
    open_engine,
    random_prompt,
    steady_rate,
    step_seconds,
)
from tests.bench.random_checkpoint import SHAPES

MANY, CONTEXT, TOKENS = 64, 1024, 320
"""The first have begun long before the last, and only while all run is of interest."""
PROMPTS, PROMPT = 8, 2048


def measure(result: Result, work: Path) -> None:
    path = checkpoint(work, "8b", card.DEVICE)
    read, products = card.read_rate(), card.product_rate()
    result.number("memory_read_gb_s", read / 1e9)
    result.number("products_tflop_s", products / 1e12)
    asyncio.run(_measure(result, path, read, products))


async def _measure(result: Result, path: Path, read: float, products: float) -> None:
    model = open_engine(path, max_model_len=4096, max_running=MANY)
    await model.wake()
    config = parsed(SHAPES["8b"])
    await attempt(result, "one_by_one", one_by_one(result, model, config, read))
    await attempt(result, "prompts", prompts(result, model, config, products))
    await attempt(result, "many", many(result, model, config, read))
    await model.close()


async def one_by_one(result: Result, model: Engine, config: ModelConfig, read: float) -> None:
    await answer(model, random_prompt(128, "warm"), 8)
    steps = [step_seconds(await answer(model, random_prompt(128, seed), 160)) for seed in range(3)]
    least = 2 * (layer_weights(config) + config.vocab_size * config.hidden_size) / read
    result.number("one_answer_tokens_s", 1 / median(steps))
    result.number("one_answer_over_bandwidth", least / median(steps), least=0.8)


async def prompts(result: Result, model: Engine, config: ModelConfig, products: float) -> None:
    """Several at once, each of some chunks, a token of answer each."""
    await answers(model, [random_prompt(PROMPT, "warm")], 1)
    rates = []
    for round_ in range(3):
        found = await answers(model, [random_prompt(PROMPT, f"{round_} {i}") for i in range(PROMPTS)], 1)
        took = max(one.came[-1] for one in found) - min(one.asked for one in found)
        rates.append(PROMPTS * PROMPT / took)
    result.number("prompt_tokens_s", median(rates))
    reached = median(rates) * operations(config, PROMPT) / PROMPT
    result.number("prompts_over_products", reached / products, least=0.6)


async def many(result: Result, model: Engine, config: ModelConfig, read: float) -> None:
    await answers(model, [random_prompt(16, f"warm {i}") for i in range(MANY)], 8)
    found = await answers(model, [random_prompt(CONTEXT, i) for i in range(MANY)], TOKENS)
    rate = steady_rate(found)
    result.number("64_answers_tokens_s", rate)
    cached = MANY * (CONTEXT + TOKENS / 2) * 4 * config.num_layers * config.num_kv_heads * config.head_dim
    least = (2 * (layer_weights(config) + config.vocab_size * config.hidden_size) + cached) / read
    result.number("64_answers_over_bandwidth", least * rate / MANY)
    began = min(one.asked for one in found)
    result.number("64_answers_seconds_in_all", max(one.came[-1] for one in found) - began)


def layer_weights(config: ModelConfig) -> int:
    """Numbers in the matrices of all layers."""
    attention = 2 * config.num_heads + 2 * config.num_kv_heads
    layer = config.hidden_size * (attention * config.head_dim + 3 * config.intermediate_size)
    return config.num_layers * layer


def operations(config: ModelConfig, tokens: int) -> float:
    """Of a prompt in floating point: the matrices', and what each token has before it."""
    seen = tokens * tokens / 2
    return 2 * layer_weights(config) * tokens + 4 * seen * (
        config.num_layers * config.num_heads * config.head_dim
    )
