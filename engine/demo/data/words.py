"""Words to spell: common English ones, names, and made-up ones of many shapes."""

from __future__ import annotations

from random import Random

from .grammar import sections

WORDS = {title: phrases[0].split() for title, phrases in sections("words.txt").items()}
COMMON, NAMES = WORDS["common"] + WORDS["units"] + WORDS["tens"], WORDS["names"]
BEGINNINGS, ENDINGS = WORDS["beginnings"], WORDS["endings"]
PRODUCT_WORDS = frozenset(WORDS["product"])
ONSETS = WORDS["onsets"] + [""] * 4
VOWELS = WORDS["vowels"]
CODAS = WORDS["codas"] + [""] * 40
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def syllable(rng: Random) -> str:
    """One syllable that could be English."""
    return rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)


def made_up_word(rng: Random) -> str:
    """A word of one to three syllables that probably nobody has written before."""
    word = "".join(syllable(rng) for _ in range(rng.choice((1, 1, 2, 2, 2, 3))))
    if rng.random() < 0.1:
        word = rng.choice(BEGINNINGS) + word
    if rng.random() < 0.2:
        word += rng.choice(ENDINGS)
    return word[:14] if len(word) > 1 else word + "n"


def altered_word(rng: Random) -> str:
    """A common word with an ending, a beginning or one letter changed, so that pieces of words are seen in new company."""
    word = rng.choice(COMMON)
    kind = rng.randrange(4)
    if kind == 0:
        return word + rng.choice(ENDINGS)
    if kind == 1:
        return rng.choice(BEGINNINGS) + word
    spot = rng.randrange(len(word))
    if kind == 2:
        return word[:spot] + rng.choice(LETTERS) + word[spot + 1 :]
    return word[:spot] + rng.choice(COMMON)[-4:]


def repetitive_word(rng: Random) -> str:
    """A made-up word of which a few letters come twice in a row."""
    word = made_up_word(rng)
    spot = rng.randrange(len(word))
    again = word[spot : spot + rng.choice((1, 1, 1, 2, 3))]
    return (word[:spot] + again + word[spot:])[:14]


def any_word(rng: Random) -> str:
    """A word to spell, seldom with capital letters."""
    kind = rng.random()
    if kind < 0.28:
        word = rng.choice(COMMON)
    elif kind < 0.54:
        word = made_up_word(rng)
    elif kind < 0.72:
        word = repetitive_word(rng)
    elif kind < 0.87:
        word = altered_word(rng)
    elif kind < 0.93:
        word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 8)))
    else:
        word = rng.choice(NAMES)
    style = rng.random()
    return word.upper() if style < 0.08 else word.capitalize() if style < 0.16 else word
