"""Dresses phrases the way people type them: openers, closers, letter case, punctuation and typing errors."""

from __future__ import annotations

import re
from random import Random

from .grammar import sections

SURROUNDINGS = sections("noise.txt")
OPENERS, CLOSERS = SURROUNDINGS["openers"], SURROUNDINGS["closers"]
ENDS = ("", "", "", "", ".", ".", "?", "?", "?", "?", "!", "??", "...", " ?", "?!", "!!", ":", " :)", "\n")
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def mistype(word: str, rng: Random) -> str:
    """Makes one typing error inside the word."""
    spot = rng.randrange(len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :]
    if kind == 1:
        return word[:spot] + word[spot + 1 :]
    if kind == 2:
        return word[: spot + 1] + word[spot:]
    row = next((keys for keys in KEYS if word[spot].lower() in keys), word[spot])
    return word[:spot] + rng.choice(row) + word[spot + 1 :]


def typos(phrase: str, rng: Random) -> str:
    """Makes a typing error in one longer word; slots stay whole."""
    words = phrase.split(" ")
    long = [index for index, word in enumerate(words) if len(word) > 2 and word.isalpha()]
    for index in rng.sample(long, min(len(long), 1)):
        words[index] = mistype(words[index], rng)
    return " ".join(words)


def surround(phrase: str, rng: Random) -> str:
    """Puts an opener before the phrase and a closer behind it, now and then."""
    if rng.random() < 0.16:
        phrase = f"{rng.choice(OPENERS)} {phrase}"
    if rng.random() < 0.14:
        phrase = f"{phrase} {rng.choice(CLOSERS)}".replace(" ,", ",")
    return phrase


def capital(phrase: str) -> str:
    """Makes the first letter a capital one unless the phrase begins with a slot."""
    return re.sub(r"\bi\b(?![^{]*\})", "I", phrase[:1].upper() + phrase[1:])


def dress(phrase: str, rng: Random, surrounded: bool = True) -> str:
    """Varies a phrase whose slots are still open."""
    phrase = surround(phrase, rng) if surrounded else phrase
    if rng.random() < 0.16:
        phrase = typos(phrase, rng)
    style = rng.random()
    if style < 0.45:
        return capital(phrase) + rng.choice(ENDS)
    if style < 0.62:
        return phrase + rng.choice(ENDS)
    phrase = phrase.lower()
    return re.sub(r"[^\w\s{}+*/=.-]", "", phrase) if style < 0.85 else phrase + rng.choice(ENDS)
