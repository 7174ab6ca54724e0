"""Spelling words and counting their letters."""

from __future__ import annotations

from random import Random

from .grammar import Exchange, expand, fill, sections
from .noise import dress
from .words import LETTERS, any_word

TEMPLATES = sections("spelling.txt")


def pose(kind: str, word: str, rng: Random, **slots: str) -> str:
    """Asks about the word in one of the ways to ask for its spelling, its length and so on."""
    return fill(dress(expand(rng.choice(TEMPLATES[kind]), rng), rng), {"w": word, **slots})


def spelled(word: str) -> str:
    """The beginning of every answer: the word and its letters."""
    return f"The word {word} is spelled {'-'.join(word)}"


def spell(word: str, rng: Random) -> Exchange:
    """Asks for the spelling."""
    return Exchange(pose("spell", word, rng), f"{spelled(word)}.")


def length(word: str, rng: Random) -> Exchange:
    """Asks for the number of letters."""
    letters = f"{len(word)} letter" + "s" * (len(word) > 1)
    return Exchange(pose("length", word, rng), f"{spelled(word)}, so it has {letters}.")


def end_letter(word: str, rng: Random) -> Exchange:
    """Asks for the first or the last letter."""
    ends = (("first", "start", word[0]), ("first", "begin", word[0]), ("last", "end", word[-1]))
    end, verb, letter = rng.choice(ends)
    question = pose("ends", word, rng, end=end, verb=verb)
    return Exchange(question, f"{spelled(word)}, so its {end} letter is {letter}.")


def occurrences(word: str, rng: Random) -> Exchange:
    """Asks how often a letter occurs."""
    letter = rng.choice(word if rng.random() < 0.9 else LETTERS)
    times = word.lower().count(letter.lower())
    question = pose("occurrences", word, rng, letter=letter)
    return Exchange(question, f"{spelled(word)}, so {letter} occurs {times} time{'s' * (times != 1)}.")


def backwards(word: str, rng: Random) -> Exchange:
    """Asks for the letters in reverse."""
    return Exchange(pose("backwards", word, rng), f"{spelled(word)}, and backwards {'-'.join(word[::-1])}.")


def exchange(rng: Random) -> Exchange:
    """A question about the letters of a word, its spelling more often than not."""
    kinds = (spell, length, end_letter, occurrences, backwards)
    word = any_word(rng)
    made = rng.choices(kinds, (64, 20, 6, 6, 4))[0](word, rng)
    shouted = word.isupper() and rng.random() < 0.4
    return made._replace(question=made.question.upper()) if shouted else made
