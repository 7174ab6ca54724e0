"""Reasoning that a model writes before its answer, between two marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.chat.pieces import Content, Reasoning
from gateway.chat.reader import Reader, Reading
from gateway.config import ReasoningParser


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a family marks its reasoning."""

    opening: str
    closing: str

    def opened_by(self, prompt: str) -> bool:
        """Whether the template has written the opening mark already."""
        return prompt.rstrip().endswith(self.opening)

    def read(self, reader: Reader, *, opened: bool) -> Reading[None]:
        """Reasoning, if the answer begins with it."""
        if not opened:
            reader.mark()
            if not (yield from reader.follows(self.opening)):
                if reader.taken:
                    yield Content(reader.taken)
                return
        yield from reader.skip_space()
        yield from reader.until((self.closing,), Reasoning, trim=True)
        yield from reader.skip_space()


_THINK: Final = Thinking("<think>", "</think>")
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
    "granite": Thinking("Here is my thought process:", "Here is my response:"),
}
"""By the names that the configuration has for them."""


def thinking_of(template: str) -> Thinking | None:
    """That whose marks a chat template speaks of."""
    return next((found for found in THINKING.values() if found and found.closing in template), None)
