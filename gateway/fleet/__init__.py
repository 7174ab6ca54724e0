"""The fleet of models: who is awake, who sleeps, who waits."""

from __future__ import annotations

from gateway.fleet.budget import Backend
from gateway.fleet.events import Events, Transition, WakeRecord
from gateway.fleet.fleet import Fleet
from gateway.fleet.idle import SchedulerTimers, Timers, VirtualTimers
from gateway.fleet.lease import Lease
from gateway.fleet.state import Cause, State, WaitingFor
from gateway.fleet.status import ModelStatus

__all__ = [
    "Backend",
    "Cause",
    "Events",
    "Fleet",
    "Lease",
    "ModelStatus",
    "SchedulerTimers",
    "State",
    "Timers",
    "Transition",
    "VirtualTimers",
    "WaitingFor",
    "WakeRecord",
]
