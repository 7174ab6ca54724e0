"""What a stream says while nothing comes: a comment, or a chunk to those who want to know more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import msgspec
from msgspec import UNSET, Struct

from gateway.api import sse
from gateway.api.schema.generation import ChunkUsage, StreamOptions, Wake, WakeProgress
from gateway.errors import ModelNotFound
from gateway.fleet import Fleet, ModelStatus, State, WaitingFor

WakeChunk = Callable[[Wake, ChunkUsage], Struct]

_SERVING = (State.AWAKE, State.DRAINING)


class Meanwhile:
    """``placed`` is to be set when the request has its place: what others wait for is not its own wait."""

    def __init__(self, fleet: Fleet, model: str, options: StreamOptions, wake_chunk: WakeChunk) -> None:
        self._fleet = fleet
        self._model = model
        self._options = options
        self._wake_chunk = wake_chunk
        self.placed = False

    @property
    def every(self) -> float:
        """Seconds."""
        return sse.PROGRESS if self._options.include_wake else sse.HEARTBEAT

    def events(self) -> bytes:
        try:
            status = self._fleet.status_of(self._model)
        except ModelNotFound:  # the configuration has just lost it, and what is in flight is finished
            return sse.comment("waiting")
        waiting_for = None if self.placed and status.state in _SERVING else status.waiting_for
        if self._options.include_wake:
            return sse.data(msgspec.json.encode(self._chunk(status, waiting_for)))
        return sse.comment(f"waiting for {waiting_for}" if waiting_for else "waiting")

    def _chunk(self, status: ModelStatus, waiting_for: WaitingFor | None) -> Struct:
        wake = Wake(
            state=status.state,
            seconds=status.state_seconds,
            level=status.level,
            queued=status.queued,
            waiting_for=waiting_for,
            progress=WakeProgress(**asdict(status.progress)) if status.progress else None,
        )
        return self._wake_chunk(wake, None if self._options.include_usage else UNSET)
