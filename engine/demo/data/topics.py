"""Topics: fixed answers, each with a share and many ways to ask for it."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from .grammar import Exchange, expand, sections
from .noise import dress


class Topic(NamedTuple):
    """An answer, how often it is wanted, and templates of the questions that it answers."""

    answer: str
    share: float
    templates: list[str]


def read_topics(file_name: str) -> list[Topic]:
    """The topics of a file, whose section titles are a share and an answer."""
    titled = [
        (title.split(" ", 1), phrases) for title, phrases in sections(file_name).items() if title[0] != "<"
    ]
    return [Topic(answer, float(share), phrases) for (share, answer), phrases in titled]


def ask_about(topics: list[Topic], rng: Random, surrounded: bool = True) -> Exchange:
    """One way to ask for one of the topics."""
    topic = rng.choices(topics, [topic.share for topic in topics])[0]
    return Exchange(dress(expand(rng.choice(topic.templates), rng), rng, surrounded), topic.answer)
