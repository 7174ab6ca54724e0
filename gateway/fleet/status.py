"""What can be seen of a model from outside. Looking changes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine import Kind, Level, Progress
from gateway.fleet.events import WakeRecord
from gateway.fleet.served_model import ServedModel
from gateway.fleet.state import State, WaitingFor


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    name: str
    aliases: tuple[str, ...]
    state: State
    level: Level | None
    state_seconds: float
    """Since it came into this state and level."""
    in_flight: int
    """Requests accepted and not over, the queued ones included."""
    queued: int
    """Of these, those without a first token yet."""
    waiting_for: WaitingFor | None
    """What those wait for who are not served yet, or not now; None: nobody waits."""
    idle_seconds: float | None
    """Since its last use; None: never used, or in use."""
    sleeps_in_seconds: float | None
    """Until it falls asleep if nobody asks; None: it does not by itself."""
    device_bytes: int
    host_bytes: int
    weights_bytes: int
    """The size of its weights, wherever they are; 0 when not known yet."""
    kv_bytes: int
    packed_bytes: int
    """Of the weights, what lies as the device's matmul likes it, in its own place."""
    residue_bytes: int
    to_wake_bytes: int
    """What a wake would add on the device; of a model never loaded, what its files' headers tell."""
    max_model_len: int | None
    kind: Kind | None
    """Whether it generates text or makes embeddings; None: not opened yet."""
    pinned: bool
    last_wake: WakeRecord | None
    last_error: str | None
    progress: Progress | None


def status_of(model: ServedModel, now: float) -> ModelStatus:
    footprint = model.footprint()
    return ModelStatus(
        name=model.name,
        aliases=model.config.aliases,
        state=model.state,
        level=model.level,
        state_seconds=now - model.state_since,
        in_flight=model.queue.in_flight + model.at_opening,
        queued=model.queue.queued + model.at_opening,
        waiting_for=model.waiting_for,
        idle_seconds=_idle_seconds(model, now),
        sleeps_in_seconds=_sleeps_in_seconds(model, now),
        device_bytes=footprint.device,
        host_bytes=footprint.host_copy,
        weights_bytes=model.weights_bytes,
        kv_bytes=footprint.kv,
        packed_bytes=footprint.packed,
        residue_bytes=footprint.residue,
        to_wake_bytes=footprint.to_wake,
        max_model_len=model.max_model_len,
        kind=model.engine.info.kind if model.engine else None,
        pinned=model.pinned,
        last_wake=model.last_wake,
        last_error=model.last_error,
        progress=model.engine.progress() if model.engine else None,
    )


def _idle_seconds(model: ServedModel, now: float) -> float | None:
    if model.queue.in_flight or model.last_used == -math.inf:
        return None
    return now - model.last_used


def _sleeps_in_seconds(model: ServedModel, now: float) -> float | None:
    deadline = model.sleep_deadline() if model.held else None
    if deadline is None or deadline == math.inf:
        return None
    return max(0.0, deadline - now)
