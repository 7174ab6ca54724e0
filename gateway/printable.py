"""What others have sent, so that a line of a log or a terminal can show it."""

from __future__ import annotations


def printable(text: str, longest: int = 100) -> str:
    """Of no more than ``longest`` characters before control characters and the like are escaped."""
    shown = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
