"""What the text of an answer turns out to be, piece by piece."""

from __future__ import annotations

from msgspec import Struct


class Content(Struct, frozen=True):
    text: str


class Reasoning(Struct, frozen=True):
    text: str


class CallStart(Struct, frozen=True):
    """A call of this function begins; its arguments follow."""

    name: str


class CallArguments(Struct, frozen=True):
    """A part of the arguments of the call that has begun: joined, they are a JSON object."""

    text: str


class CallEnd(Struct, frozen=True):
    """The arguments are whole."""


Piece = Content | Reasoning | CallStart | CallArguments | CallEnd
