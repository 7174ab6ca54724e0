"""What the text of an answer turns out to be, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of this function begins; its arguments follow."""

    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A part of the arguments of the call that has begun: joined, they are a JSON object."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The arguments are whole."""


Piece = Content | Reasoning | CallStart | CallArguments | CallEnd
