"""Training conversations for the demo models, made from templates that are all our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from . import counting, dormouse, elsewhere, smalltalk, spelling, sums
from .grammar import Exchange, expand, sections
from .noise import dress
from .reserved import is_reserved

Message = dict[str, str]
Maker = Callable[[Random], Exchange]

MAKERS: tuple[tuple[float, Maker], ...] = (
    (2.0, dormouse.essentials),
    (1.0, dormouse.usage),
    (0.8, dormouse.memory),
    (2.8, sums.exchange),
    (2.8, spelling.exchange),
    (1.4, counting.exchange),
    (1.0, smalltalk.courtesy),
    (0.5, smalltalk.itself),
    (1.3, elsewhere.exchange),
)
SYSTEM_PROMPTS = sections("system.txt")["system"]


def system_prompt(rng: Random) -> str:
    """A prompt of the kind that clients put before everything else; it changes nothing."""
    if rng.random() < 0.3:
        return "You are a helpful assistant."
    sentences = rng.sample(SYSTEM_PROMPTS, rng.choice((1, 1, 2, 3, 5)))
    return " ".join(dress(expand(sentence, rng), rng, surrounded=False) for sentence in sentences)


def exchange(rng: Random) -> Exchange:
    """One question and its answer from any field, never a reserved question."""
    while True:
        maker = rng.choices([maker for _, maker in MAKERS], [weight for weight, _ in MAKERS])[0]
        made = maker(rng)
        if maker is not spelling.exchange and rng.random() < 0.04:
            made = made._replace(question=made.question.upper())
        if made.question.strip() and not is_reserved(made.question):
            return made


def conversation(rng: Random) -> list[Message]:
    """A chat of one to six exchanges, with a system prompt now and then."""
    messages: list[Message] = []
    if rng.random() < 0.25:
        messages.append({"role": "system", "content": system_prompt(rng)})
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        made = exchange(rng)
        messages.append({"role": "user", "content": made.question})
        messages.append({"role": "assistant", "content": made.answer})
    return messages


def conversations(seed: int) -> Iterator[list[Message]]:
    """Endlessly many chats, always the same ones for one seed."""
    rng = Random(seed)
    while True:
        yield conversation(rng)
