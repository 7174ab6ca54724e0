"""Trains both demo models from scratch on one CPU core and writes them as plain Hugging Face directories."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from .families import FAMILIES, Family
from .tokens import batches, save_tokenizer, train_tokenizer

HERE = Path(__file__).parent
BATCH_TOKENS = 4096
SHORT_ROW, LONG_ROW = 256, 512
LONG_SHARE = 0.25
WARMUP_STEPS = 60
MUON_RATE = 4e-3
ADAM_RATE = 4e-3
RESUMED_RATE = 0.4
RESUMED_SEED = 100


def optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [
        weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name
    ]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=rate * MUON_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate * ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_at(step: int, steps: int) -> float:
    """The share of the full learning rate: a short rise, then half a cosine down to almost nothing."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def weighted_loss(model: Callable[..., Any], tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean loss over the next tokens, each counted with its weight."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    losses = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    wanted = weights[:, 1:].flatten()
    return (losses * wanted).sum() / wanted.sum()


def fit(model: nn.Module, family: Family, tokenizer: Tokenizer, steps: int, resumed: bool) -> None:
    """Trains the model on short rows first and on long ones at the end."""
    rule = optimizers(model, RESUMED_RATE if resumed else 1.0)
    seed = family.seed + RESUMED_SEED * resumed
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: rate_at(step, steps)) for one in rule]
    short = batches(family, tokenizer, BATCH_TOKENS // SHORT_ROW, SHORT_ROW, seed + 1)
    long = batches(family, tokenizer, BATCH_TOKENS // LONG_ROW, LONG_ROW, seed + 2)
    compiled, begun, shown = torch.compile(model, dynamic=False), time.monotonic(), 0.0
    for step in range(steps):
        tokens, weights = next(short if step < steps * (1 - LONG_SHARE) else long)
        loss = weighted_loss(compiled, tokens, weights)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one, schedule in zip(rule, schedules, strict=True):
            one.step()
            schedule.step()
            one.zero_grad(set_to_none=True)
        shown += loss.item()
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - begun
            print(f"{family.directory} step {step + 1} loss {shown / 50:.4f} {seconds:.0f}s", flush=True)
            shown = 0.0


def save(model: PreTrainedModel, family: Family, tokenizer: Tokenizer, directory: Path) -> None:
    """Writes weights in bfloat16, configuration and tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(directory)
    save_tokenizer(tokenizer, family, directory)
    ids = tokenizer.get_vocab()
    generation = {
        "do_sample": False,
        "bos_token_id": ids[family.bos],
        "pad_token_id": ids[family.pad],
        "eos_token_id": [ids[family.end_of_turn], ids[family.pad]],
    }
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def train(family: Family, steps: int, directory: Path, resumed: bool) -> None:
    """Makes one demo model from nothing, or trains the one in the directory on at a lower rate."""
    torch.manual_seed(family.seed)
    if resumed:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        model = family.model_class.from_pretrained(directory, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(family)
        model = family.new_model(tokenizer.get_vocab())
    print(f"{family.directory}: {model.num_parameters()} parameters")
    fit(model, family, tokenizer, steps, resumed)
    save(model, family, tokenizer, directory)


def main() -> None:
    """Command line: which models to train, for how many steps, and where to write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", nargs="*", default=[family.directory for family in FAMILIES])
    parser.add_argument("--steps", type=int, default=1150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for family in FAMILIES:
        if family.directory in options.directories:
            train(family, options.steps, options.out / family.directory, options.resume)


if __name__ == "__main__":
    main()
