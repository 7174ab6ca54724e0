"""The known word that a misspelt one was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice
from typing import Final

ALIKE: Final = 0.6
LONGEST: Final = 64
"""Characters of a word that is still compared: the work grows with the square of it, and clients choose it."""
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
            # The first two are upper bounds of the third, and cheap.
            if min(matcher.real_quick_ratio(), matcher.quick_ratio()) > likeness:
                if (ratio := matcher.ratio()) > likeness:
                    best, likeness = other, ratio
    return best


def _without_owner(name: str, word: str) -> str:
    return name if "/" in word else name.rpartition("/")[2]
