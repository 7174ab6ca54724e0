"""Snapshots for the policy, generated, and a world that obeys the policy in the simplest way."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.fleet import State
from gateway.fleet.actions import (
    Action,
    Deepen,
    EndTurn,
    ForgetKv,
    Refuse,
    Resume,
    Sleep,
    Suspend,
    TrimCopy,
    TrimKv,
    Wake,
)
from gateway.fleet.snapshot import Budget, Model, Snapshot

NOW = 1000.0
FIRST_KV = 2

KINDS = (
    "cold", "asleep 1", "asleep 2", "suspended 1", "suspended 2",
    "awake", "turn over", "half-woken", "waking", "falling asleep",
)  # fmt: skip


@st.composite
def models(draw: st.DrawFn, name: str, shared: bool) -> Model:
    kind = draw(st.sampled_from(KINDS))
    weights, kv = draw(st.integers(1, 60)), draw(st.integers(0, 20))
    residue = 0 if kind == "cold" else draw(st.integers(0, 2))
    suspended = kind.startswith("suspended")
    active = draw(st.integers(suspended, 3)) if kind in ("awake", "turn over") or suspended else 0
    used = NOW if active else NOW - draw(st.sampled_from([0.0, 1.0, 20.0, 500.0]))
    waits = suspended or (draw(st.booleans()) and not (kind == "awake" and not active))
    model = Model(
        name=name,
        state=State.COLD,
        pinned=draw(st.sampled_from([False, False, False, True])),
        preferred_level=draw(st.sampled_from(["auto", 1, 2])),
        residue_bytes=residue,
        device_bytes=residue,
        weights_bytes=weights,
        to_wake=weights + FIRST_KV,
        active=active,
        waiting_since=NOW - draw(st.sampled_from([0.0, 1.0, 5.0, 30.0])) if waits else None,
        last_used=used,
        due=not active and not waits and kind in ("awake", "asleep 1", "half-woken") and draw(st.booleans()),
    )
    whole = weights + kv + residue
    copied = 0 if shared else draw(st.sampled_from([0, weights]))
    match kind:
        case "asleep 1" | "suspended 1":
            kept = kv if suspended else 0
            held = weights + residue if shared else residue
            to_wake = FIRST_KV if shared else weights + FIRST_KV
            model = replace(model, kv_used=kept, device_bytes=held + kept, host_bytes=weights)
            return replace(model, state=State.ASLEEP, level=1, to_wake=to_wake)
        case "asleep 2" | "suspended 2":
            kept = kv if suspended else 0
            return replace(model, state=State.ASLEEP, level=2, kv_used=kept, device_bytes=residue + kept)
        case "awake" | "turn over":
            state = State.AWAKE if kind == "awake" else State.DRAINING
            awake_since = NOW - draw(st.sampled_from([0.0, 2.0, 50.0]))
            ended = NOW - draw(st.sampled_from([0.0, 0.5, 2.0]))
            kv_used = draw(st.integers(0, kv)) if active else 0
            model = replace(model, device_bytes=whole, kv_unused=kv - kv_used, kv_used=kv_used, to_wake=0)
            model = replace(model, host_bytes=copied)
            return replace(model, state=state, awake_since=awake_since, turn_ended_at=ended)
        case "half-woken":
            held = weights + residue
            return replace(
                model,
                state=State.ASLEEP,
                level=2,
                half_woken=True,
                device_bytes=held,
                host_bytes=copied,
                to_wake=FIRST_KV,
            )
        case "waking":
            part = draw(st.integers(0, weights))
            target = weights + FIRST_KV + residue
            return replace(
                model,
                state=State.WAKING,
                moving=True,
                device_bytes=residue + part,
                target_bytes=target,
                host_bytes=copied,
            )
        case "falling asleep":
            return replace(
                model, state=State.DRAINING, moving=True, device_bytes=whole, target_bytes=residue, to_wake=0
            )
    return model


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    shared = draw(st.booleans())
    fleet = tuple(draw(models(name, shared)) for name in "abcdef"[: draw(st.integers(1, 6))])
    used = sum(model.device_bytes for model in fleet)
    promised = sum(max(0, model.target_bytes - model.device_bytes) for model in fleet if model.moving)
    limit = used + promised + draw(st.integers(-10, 80))
    host_limit = draw(st.integers(0, 150))
    budget = Budget(
        device_limit=limit,
        device_used=used,
        device_available=max(0, limit - used) + draw(st.sampled_from([0, 100, -5])),
        host_limit=host_limit,
        host_parked=sum(model.host_bytes for model in fleet),
        host_available=draw(st.integers(0, 200)),
        shared_pool=shared,
    )
    return Snapshot(now=NOW, models=fleet, budget=budget, min_awake=5.0, turn=10.0)


def obey(
    snapshot: Snapshot, actions: tuple[Action, ...], seconds: float, *, endless: bool = False
) -> Snapshot:
    """The same world after its models did as they were told, all requests ended and ``seconds`` went by.
    ``endless``: requests do not end."""
    told = {action.name: action for action in actions}
    now = snapshot.now + seconds
    shared = snapshot.budget.shared_pool
    after = tuple(
        _ended(_told(model, told.get(model.name), snapshot), now, endless, shared)
        for model in snapshot.models
    )
    after = _give_way(after, snapshot.budget.host_limit)
    freed = sum(model.device_bytes for model in snapshot.models) - sum(m.device_bytes for m in after)
    budget = replace(
        snapshot.budget,
        device_used=snapshot.budget.device_used - freed,
        device_available=snapshot.budget.device_available + freed,
        host_parked=sum(model.host_bytes for model in after),
    )
    return replace(snapshot, now=now, models=after, budget=budget)


def _give_way(models: tuple[Model, ...], limit: int) -> tuple[Model, ...]:
    """Spare copies go where all do not fit."""
    excess, given = sum(model.host_bytes for model in models) - limit, set[str]()
    for spare in sorted([m for m in models if m.spare_bytes], key=lambda m: m.awake_since):
        if excess > 0:
            given.add(spare.name)
            excess -= spare.host_bytes
    return tuple(replace(m, host_bytes=0) if m.name in given else m for m in models)


def _told(model: Model, action: Action | None, snapshot: Snapshot) -> Model:
    whole = model.residue_bytes + model.weights_bytes + FIRST_KV + model.kv_used
    parked = model.weights_bytes if snapshot.budget.shared_pool else 0
    match action:
        case Wake():
            return replace(model, moving=True, state=State.WAKING, target_bytes=whole, half_woken=False)
        case Sleep(_, 1, _):
            target = model.residue_bytes + parked
            return replace(model, moving=True, level=1, host_bytes=model.weights_bytes, target_bytes=target)
        case Sleep() | Deepen():
            return replace(model, moving=True, level=2, host_bytes=0, target_bytes=model.residue_bytes)
        case Suspend(_, level, keep_kv):
            kept = model.kv_used if keep_kv else 0
            target = model.residue_bytes + kept + (parked if level == 1 else 0)
            host_bytes = model.weights_bytes if level == 1 else 0
            model = replace(model, moving=True, level=level, target_bytes=target, host_bytes=host_bytes)
            return replace(model, kv_used=kept, turn_ended_at=snapshot.now)
        case ForgetKv():
            return replace(model, device_bytes=model.device_bytes - model.kv_used, kv_used=0)
        case TrimKv():
            kept = model.device_bytes - model.kv_unused
            return replace(model, device_bytes=kept, kv_unused=0)
        case TrimCopy():
            return replace(model, host_bytes=0)
        case EndTurn():
            return replace(model, state=State.DRAINING, turn_ended_at=snapshot.now)
        case Resume():
            return replace(model, state=State.AWAKE)
        case Refuse():
            return replace(model, waiting_since=None)
    return model


def _ended(model: Model, now: float, endless: bool, shared: bool) -> Model:
    """Its operation, or its requests, have come to an end."""
    model = replace(model, due=False)
    if not model.moving:
        if endless or not model.awake:
            return replace(model, last_used=now if model.active else model.last_used)
        used = model.kv_unused + model.kv_used
        last_used = now if model.active else model.last_used
        return replace(model, active=0, last_used=last_used, kv_unused=used, kv_used=0)
    model = replace(model, moving=False, device_bytes=model.target_bytes, kv_unused=0)
    if model.state is State.WAKING:
        return replace(
            model,
            state=State.AWAKE,
            level=None,
            host_bytes=0 if shared else model.host_bytes,
            to_wake=0,
            awake_since=now,
            last_used=now,
            waiting_since=None,
        )
    held = model.device_bytes - model.residue_bytes - model.kv_used
    to_wake = model.weights_bytes + FIRST_KV - held
    since = now if model.active else model.waiting_since
    model = replace(model, waiting_since=since, half_woken=False, level=model.level or 2)
    return replace(model, state=State.ASLEEP, to_wake=to_wake)
