"""Puts conversations to a model directory, through the product's own engine and templates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import engine
from engine import GenerateRequest, SamplingParams
from gateway.chat.template import compile_template

Conversation = list[dict[str, str]]

LONGEST_ANSWER = 96


def ask(directory: Path, conversations: Sequence[Conversation]) -> list[str]:
    """The greedy answers of the model in `directory`, in the order of the conversations."""
    return asyncio.run(_ask(directory, conversations))


async def _ask(directory: Path, conversations: Sequence[Conversation]) -> list[str]:
    model = engine.open(str(directory), "cpu")
    await model.load()
    await model.wake()
    try:
        return await asyncio.gather(*(_answer(model, conversation) for conversation in conversations))
    finally:
        await model.close()


async def _answer(model: engine.Engine, conversation: Conversation) -> str:
    template = compile_template(model.info.chat_template or "")
    prompt = template.render(conversation, special_tokens=model.info.special_tokens)
    request = GenerateRequest(
        prompt_ids=model.encode(prompt, add_special_tokens=False),
        sampling=SamplingParams(max_tokens=LONGEST_ANSWER, temperature=0.0),
    )
    return "".join([delta.text async for step in model.generate(request) for delta in step])


def question(text: str) -> Conversation:
    """A conversation of a single question."""
    return [{"role": "user", "content": text}]
