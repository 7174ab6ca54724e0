"""Questions about everything else, to which the demo model says politely that it is only small."""

from __future__ import annotations

from random import Random

from .grammar import Exchange, expand, fill, sections
from .noise import dress
from .words import COMMON, NAMES, PRODUCT_WORDS, made_up_word

ONLY_SMALL = (
    "I am only a small demo model, so I cannot help with that; "
    "ask me about Dormouse, small sums, spelling or counting."
)
SECTIONS = sections("elsewhere.txt")
TEMPLATES, BIG_NUMBERS = SECTIONS["elsewhere"], SECTIONS["big numbers"]
FOREIGN_WORDS = [word for word in COMMON if word not in PRODUCT_WORDS]
FOREIGN_NAMES = [name for name in NAMES if name not in PRODUCT_WORDS]


def slots(rng: Random) -> dict[str, str]:
    """A word, a made-up word, a name and numbers too big for the demo model."""
    name = rng.choice(FOREIGN_NAMES) if rng.random() < 0.4 else made_up_word(rng).capitalize()
    return {
        "w": rng.choice(FOREIGN_WORDS),
        "v": made_up_word(rng),
        "name": name.lower() if rng.random() < 0.4 else name,
        "n": str(rng.randint(1, 20)),
        "big": str(rng.choice((rng.randint(21, 99), rng.randint(21, 999)))),
        "far": str(rng.randint(41, 999)),
        "huge": str(rng.randint(100, 99999)),
        "words": rng.choice(BIG_NUMBERS),
        "year": str(rng.randint(1900, 2030)),
    }


def exchange(rng: Random) -> Exchange:
    """A question outside of what the demo model knows."""
    return Exchange(fill(dress(expand(rng.choice(TEMPLATES), rng), rng), slots(rng)), ONLY_SMALL)
