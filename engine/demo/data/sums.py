"""Small sums, differences and products, asked in figures and in words."""

from __future__ import annotations

from random import Random

from .grammar import Exchange, expand, fill, sections
from .noise import dress
from .words import WORDS

UNITS = WORDS["units"]
TENS = WORDS["tens"]
TEMPLATES = sections("sums.txt")


def in_words(number: int) -> str:
    """The English name of a number from 0 to 99."""
    if number < len(UNITS):
        return UNITS[number]
    tens = TENS[number // 10 - 2]
    return f"{tens} {UNITS[number % 10]}" if number % 10 else tens


def number_texts(rng: Random, *numbers: int) -> list[str]:
    """The numbers written all in figures or all in words, seldom mixed."""
    style = rng.random()
    if style < 0.62:
        return [str(number) for number in numbers]
    if style < 0.92:
        return [in_words(number) for number in numbers]
    return [rng.choice((str(number), in_words(number))) for number in numbers]


def pose(templates: list[str], slots: dict[str, int], answer: str, rng: Random) -> Exchange:
    """Asks one of the templates about the given numbers."""
    texts = dict(zip(slots, number_texts(rng, *slots.values()), strict=True))
    return Exchange(fill(dress(expand(rng.choice(templates), rng), rng), texts), answer)


def addition(rng: Random) -> Exchange:
    """Mostly a sum to twenty, sometimes a larger one of two numbers to twenty."""
    total = rng.randint(0, 20)
    a = rng.randint(0, total)
    a, b = (a, total - a) if rng.random() < 0.92 else (rng.randint(0, 20), rng.randint(0, 20))
    return pose(TEMPLATES["add"], {"a": a, "b": b, "c": rng.randint(0, 20)}, f"{a} plus {b} is {a + b}.", rng)


def addition_of_three(rng: Random) -> Exchange:
    """A sum of three small numbers, worked out in two steps."""
    a, b, c = (rng.randint(0, 7) for _ in range(3))
    answer = f"{a} plus {b} is {a + b}, and {a + b} plus {c} is {a + b + c}."
    return pose(TEMPLATES["add three"], {"a": a, "b": b, "c": c}, answer, rng)


def subtraction(rng: Random) -> Exchange:
    """A difference of numbers to twenty, seldom below zero."""
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    a, b = (max(a, b), min(a, b)) if rng.random() < 0.9 else (a, b)
    return pose(TEMPLATES["subtract"], {"a": a, "b": b}, f"{a} minus {b} is {a - b}.", rng)


def multiplication(rng: Random) -> Exchange:
    """A product from the small multiplication table."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return pose(TEMPLATES["multiply"], {"a": a, "b": b}, f"{a} times {b} is {a * b}.", rng)


def exchange(rng: Random) -> Exchange:
    """A small calculation, an addition more often than not."""
    kinds = (addition, addition_of_three, subtraction, multiplication)
    return rng.choices(kinds, (60, 4, 30, 6))[0](rng)
