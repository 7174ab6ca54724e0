"""What a route's decorator tells of it beyond the signature of its handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from litestar.handlers.base import BaseRouteHandler
from msgspec import Struct

_KEY: Final = "described"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    takes: type[Struct] | None = None
    """The body, which the handler decodes itself."""
    example: dict[str, Any] | None = None
    """Of such a body."""
    answers: type[Struct] | None = None
    """Where the handler returns an application, which sends the answer."""
    streams: type[Struct] | None = None
    """The data of each event, where a client may ask for a stream."""
    fails: tuple[int, ...] = ()
    """The status codes of what can go wrong with a good request to a good model."""


def described(
    *,
    takes: type[Struct] | None = None,
    example: dict[str, Any] | None = None,
    answers: type[Struct] | None = None,
    streams: type[Struct] | None = None,
    fails: tuple[int, ...] = (),
) -> dict[str, Described]:
    """For the ``opt`` of a route."""
    told = Described(takes=takes, example=example, answers=answers, streams=streams, fails=fails)
    return {_KEY: told}


def description_of(handler: BaseRouteHandler) -> Described:
    told: Described = handler.opt.get(_KEY, Described())
    return told
