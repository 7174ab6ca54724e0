"""Greetings, thanks, goodbyes and questions about the demo model itself."""

from __future__ import annotations

from random import Random

from .grammar import Exchange, expand, fill, sections
from .noise import dress
from .topics import ask_about, read_topics
from .words import NAMES, made_up_word

COURTESIES = read_topics("smalltalk.txt")
ITSELF = read_topics("itself.txt")
INTRODUCTIONS = sections("introductions.txt")["introductions"]


def introduction(rng: Random) -> Exchange:
    """Somebody gives a name and is greeted by it."""
    name = rng.choice(NAMES) if rng.random() < 0.5 else made_up_word(rng).capitalize()
    name = name.lower() if rng.random() < 0.3 else name
    question = fill(dress(expand(rng.choice(INTRODUCTIONS), rng), rng, surrounded=False), {"name": name})
    return Exchange(question, f"Nice to meet you, {name}!")


def courtesy(rng: Random) -> Exchange:
    """A piece of small talk."""
    return introduction(rng) if rng.random() < 0.07 else ask_about(COURTESIES, rng, surrounded=False)


def itself(rng: Random) -> Exchange:
    """A question about the demo model and what it can do."""
    return ask_about(ITSELF, rng)
