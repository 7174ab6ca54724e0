"""What happened to the models: a bounded history of their transitions, each logged and told to subscribers.

Subscribers are called on the loop, in order, and must not block.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from engine import Level
from gateway.fleet.state import Cause, State

logger = logging.getLogger("dormouse.fleet")

HISTORY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step of one model. ``seconds`` and ``bytes`` are those of the work that led to ``after``."""

    model: str
    before: State
    after: State
    level: Level | None
    cause: Cause
    seconds: float = 0.0
    bytes: int = 0
    at: float = field(default_factory=time.time)
    """Wall-clock time, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeRecord:
    """A model's last wake. ``level`` is what it woke from, None: it was cold; ``phases`` are the engine's."""

    seconds: float
    bytes: int
    level: Level | None
    cause: Cause
    phases: Mapping[str, float]


Subscriber = Callable[[Transition], None]


class Events:
    def __init__(self) -> None:
        self.history: deque[Transition] = deque(maxlen=HISTORY)
        self.count = 0
        """Of all transitions so far."""
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Tell ``subscriber`` of every transition from now on; call the result to stop."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def since(self, number: int) -> Iterator[tuple[int, Transition]]:
        """Those of the history that came after the first ``number``, each with its own number. A number that
        is of another life of the process counts as 0."""
        first = self.count - len(self.history)
        known = number if number <= self.count else 0
        for place, transition in enumerate(self.history, first + 1):
            if place > known:
                yield place, transition

    def record(self, transition: Transition) -> None:
        self.history.append(transition)
        self.count += 1
        logger.info(
            "%s: %s -> %s%s (%s, %.3f s, %.1f MiB)",
            transition.model,
            transition.before,
            transition.after,
            f" level {transition.level}" if transition.level else "",
            transition.cause,
            transition.seconds,
            transition.bytes / 2**20,
            extra={"details": _details(transition)},
        )
        for subscriber in tuple(self._subscribers):
            subscriber(transition)


def _details(transition: Transition) -> dict[str, object]:
    return {
        "event": "transition",
        "model": transition.model,
        "before": transition.before,
        "after": transition.after,
        "sleep_level": transition.level,
        "cause": transition.cause,
        "seconds": transition.seconds,
        "bytes": transition.bytes,
    }
