"""What the policy knows: the models on one device and the memory budgets, at one moment."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from engine import Level
from gateway.fleet.state import State
from gateway.fleet.usage import DEFAULT_RATES, NO_GAPS

_AWAKE = (State.AWAKE, State.DRAINING)
_DRAINING = State.DRAINING
"""Looked up once: reading a member of an enumeration is what these tests would cost."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model as the policy sees it. Times are on the snapshot's clock."""

    name: str
    state: State
    """DRAINING: its turn is over, it admits nobody."""
    level: Level | None = None
    half_woken: bool = False
    pinned: bool = False
    preferred_level: Level | Literal["auto"] = "auto"

    moving: bool = False
    """A wake, a sleep or the like is under way; nothing can be asked of it before that ends."""
    target_bytes: int = 0
    """While moving: what it holds on the device afterwards."""
    device_bytes: int = 0
    residue_bytes: int = 0
    """Stays on the device however deep it sleeps, the KV that its suspended requests keep apart."""
    weights_bytes: int = 0
    kv_unused: int = 0
    kv_used: int = 0
    """While asleep: what its suspended requests keep."""
    host_bytes: int = 0
    """Counts against the host limit now."""
    to_wake: int = 0
    shortage: int = 0
    """What the engine found missing when a wake was tried that should have fitted."""

    active: int = 0
    """Requests admitted and not over."""
    waiting_since: float | None = None
    last_used: float = -math.inf
    awake_since: float = -math.inf
    catching_up: bool = False
    """What was suspended has got no further yet: its turn has not begun."""
    gaps: tuple[float, ...] = NO_GAPS
    wake_rates: tuple[float, float] = DEFAULT_RATES
    """Both as in ``Usage``."""
    turn_ended_at: float = -math.inf
    by_hand: bool = False
    """Somebody has asked it to sleep, or to adopt its files, and waits until nothing is in flight."""
    begun: bool = False
    """Its first wake has begun, and is as far as it comes without memory on the device."""
    due: bool = False
    """Its idle timeout (awake) or ``deepen_after`` (level 1) is over."""

    @property
    def awake(self) -> bool:
        return self.state in _AWAKE

    @property
    def turn_over(self) -> bool:
        return self.state is _DRAINING

    @property
    def waits_for_room(self) -> bool:
        return self.waiting_since is not None and not self.awake and not self.moving

    @property
    def parked(self) -> bool:
        return self.level == 1 and not self.awake and not self.half_woken

    @property
    def spare_bytes(self) -> int:
        """Of what counts against the host limit, what another model may have for its sleep: the copy that a
        model of a device with memory of its own keeps while it is awake."""
        return self.host_bytes if self.awake and not self.moving else 0

    @property
    def movable_bytes(self) -> int:
        """What level 2 gives back to the device; KV that suspended requests keep is not part of it."""
        held = self.target_bytes if self.moving else self.device_bytes
        return max(0, held - self.residue_bytes - (0 if self.awake else self.kv_used))


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. ``limit`` is what the configuration allows, ``available`` what the system has left now."""

    device_limit: int
    device_used: int
    device_available: int
    host_limit: int
    host_parked: int
    host_available: int
    shared_pool: bool
    """A CPU device: the device's memory is the host's."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    now: float
    models: tuple[Model, ...]
    budget: Budget
    min_awake: float
    turn: float
