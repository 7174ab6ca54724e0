"""A tiny phrase grammar: [a|b] picks one alternative, <name> stands for a macro and {slot} is filled in last.

Phrases are kept as text in `phrases/`: a line `# title` opens a section, a line that begins with blanks
continues the one before, and a section with the title `<name>` is a macro.
"""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import NamedTuple

PHRASES = Path(__file__).with_name("phrases")
CHOICE = re.compile(r"\[([^\[\]]*)\]")
MACRO = re.compile(r"<(\w+)>")


class Exchange(NamedTuple):
    """One question of the user and the answer to it."""

    question: str
    answer: str


def sections(file_name: str) -> dict[str, list[str]]:
    """The phrases of a file by the titles of its sections."""
    text = re.sub(r"\n +", " ", (PHRASES / file_name).read_text())
    blocks = [block.strip().split("\n") for block in re.split(r"^# ", text, flags=re.MULTILINE)[1:]]
    return {title: phrases for title, *phrases in blocks}


MACROS = {
    title.strip("<>"): phrases[0]
    for path in sorted(PHRASES.glob("*.txt"))
    for title, phrases in sections(path.name).items()
    if title.startswith("<")
}


def expand(template: str, rng: Random) -> str:
    """Picks one phrase of the template; slots stay in it."""
    while MACRO.search(template):
        template = MACRO.sub(lambda found: MACROS[found[1]], template)
    while CHOICE.search(template):
        template = CHOICE.sub(lambda found: rng.choice(found[1].split("|")), template)
    return " ".join(template.split())


def fill(phrase: str, slots: dict[str, str]) -> str:
    """Replaces each {slot} by its value."""
    for name, value in slots.items():
        phrase = phrase.replace("{" + name + "}", value)
    return phrase
