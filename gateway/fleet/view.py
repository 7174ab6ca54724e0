"""The policy's view of served models."""

from __future__ import annotations

from gateway.fleet.served_model import ServedModel
from gateway.fleet.snapshot import Model
from gateway.fleet.state import State


def seen_by_policy(model: ServedModel, now: float) -> Model:
    if model.leaving:
        return _leaving(model)
    footprint = model.footprint()
    return Model(
        name=model.name,
        state=State.COLD if model.begun else model.state,
        level=model.level,
        half_woken=model.half_woken,
        pinned=model.pinned,
        preferred_level=model.config.level,
        moving=model.moving,
        target_bytes=model.target_bytes,
        device_bytes=footprint.device,
        residue_bytes=footprint.residue,
        weights_bytes=model.weights_bytes,
        kv_unused=max(0, footprint.kv - model.kv_in_use),
        kv_used=min(footprint.kv, model.kv_in_use) if model.held else footprint.kept,
        host_bytes=footprint.host_copy,
        to_wake=footprint.to_wake,
        shortage=model.shortage,
        active=len(model.queue.active),
        waiting_since=model.waiting_since,
        last_used=now if model.queue.active else model.last_used,
        awake_since=model.awake_since,
        catching_up=model.catching_up is not None,
        gaps=model.usage.gaps,
        wake_rates=model.usage.wake_rates,
        turn_ended_at=model.turn_ended_at,
        by_hand=model.by_hand,
        begun=model.begun,
        due=model.is_due(),
    )


def _leaving(model: ServedModel) -> Model:
    """Nothing can be asked of it, and it will give back all that it holds."""
    footprint = model.footprint()
    return Model(
        name=model.name,
        state=model.state,
        moving=True,
        device_bytes=footprint.device,
        weights_bytes=model.weights_bytes,
        host_bytes=footprint.host_copy,
    )
