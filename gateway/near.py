"""The known word that a misspelt one was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice
from typing import Final

ALIKE: Final = 0.6
LONGEST: Final = 64
"""Characters of a word that is still compared: the work grows with their square, and clients choose them."""
MOST: Final = 300
"""Words that are looked at, for the same reason."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The first of those that are most like ``word``; case counts for nothing, nor does the owner of a hub
    id that ``word`` does not name. None: nothing is like it."""
    if len(word) > LONGEST:
        return None
    matcher = SequenceMatcher(b=word.casefold(), autojunk=False)
    best, likeness = None, ALIKE
    for other in islice(known, MOST):
        for spelling in {other.casefold(), _without_owner(other.casefold(), word)}:
            matcher.set_seq1(spelling[:LONGEST])
            if matcher.quick_ratio() > likeness < matcher.ratio():  # the first is a cheap upper bound
                best, likeness = other, matcher.ratio()
    return best


def _without_owner(name: str, word: str) -> str:
    return name if "/" in word else name.rpartition("/")[2]
