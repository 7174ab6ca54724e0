"""Reasoning that a model writes before its answer, between two marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.chat.pieces import Content, Reasoning
from gateway.chat.reader import Reader, Reading
from gateway.config import ReasoningParser

Marks = tuple[str, str]
"""Before and after."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a family marks its reasoning."""

    opening: str
    closing: str
    others: tuple[Marks, ...] = ()
    """That mean the same."""
    answer: Marks | None = None
    """Around the answer that follows."""

    def opened_by(self, prompt: str, continued: str = "") -> bool:
        """Whether the prompt ends within the reasoning. ``continued``: what it has of the answer."""
        before = prompt[: len(prompt) - len(continued)].rstrip()
        begun = f"{self.opening}{continued}" if before.endswith(self.opening) else continued
        _, opening, thoughts = begun.rpartition(self.opening)
        return bool(opening) and self.closing not in thoughts

    def read(self, reader: Reader, *, opened: bool, continued: bool = False) -> Reading[bool]:
        """Reasoning, if the answer begins with it. ``continued``: in the middle of it. Whether it ends."""
        marks = ((self.opening, self.closing), *self.others)
        if not (opened and continued):
            reader.mark()
            begun = yield from reader.follows(*(opening for opening, _ in marks))
            if not (opened or begun):
                if reader.taken:
                    yield Content(reader.taken)
                return True
            yield from reader.skip_space()
        if not (yield from reader.until([closing for _, closing in marks], Reasoning, trim=True)):
            return False
        yield from reader.skip_space()
        if self.answer and (yield from reader.starts(self.answer[0])):
            yield from reader.skip_space()
            yield from reader.until((self.answer[1],), Content, trim=True)
            yield from reader.skip_space()
        return True


_THINK: Final = Thinking("<think>", "</think>")
_IN_WORDS: Final = (
    ("Here is my thought process:", "Here is my response:"),
    ("Here's my thought process:", "Here's my response:"),
)
_RESPONSE: Final = Thinking("<think>", "</think>", others=_IN_WORDS, answer=("<response>", "</response>"))
THINKING: Final[Mapping[ReasoningParser, Thinking | None]] = {
    "none": None,
    "think": _THINK,
    "deepseek_r1": _THINK,
    "qwen3": _THINK,
    "olmo3": _THINK,
    "thinking": Thinking("<thinking>", "</thinking>"),
    "mistral": Thinking("[THINK]", "[/THINK]"),
    "seed_oss": Thinking("<seed:think>", "</seed:think>"),
    "cohere": Thinking("<|START_THINKING|>", "<|END_THINKING|>"),
    "granite": Thinking(
        *_IN_WORDS[0], others=(_IN_WORDS[1], ("<think>", "</think>")), answer=_RESPONSE.answer
    ),
}
"""By the names that the configuration has for them."""


def thinking_of(template: str) -> Thinking | None:
    """That whose marks a chat template speaks of."""
    if _RESPONSE.closing in template and "<response></response>" in template:
        return _RESPONSE
    return next((found for found in THINKING.values() if found and found.closing in template), None)
