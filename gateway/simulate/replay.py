"""A trace served by the real fleet and the real policy, on a simulated machine and a virtual clock."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engine import GenerateRequest, Level, SamplingParams
from gateway.config import Config
from gateway.errors import ApiError
from gateway.fleet import Fleet, State, Transition, VirtualTimers
from gateway.fleet.ranking import Ranking
from gateway.simulate.baselines import Watch
from gateway.simulate.machine import Machine
from gateway.simulate.trace import Request


@dataclass(slots=True)
class Tally:
    """What became of the requests, and what the models did for them."""

    requests: int = 0
    answered: int = 0
    cold: int = 0
    """Waited for a wake."""
    waits: array[float] = field(default_factory=lambda: array("d"))
    """Seconds until each request that was not refused had its place at an awake model."""
    refused: Counter[int] = field(default_factory=Counter)
    """By HTTP status."""
    wakes: Counter[Level] = field(default_factory=Counter)
    """By the level that they were from; a cold model is as one at level 2."""
    sleeps: Counter[Level] = field(default_factory=Counter)
    _woken_from: dict[str, Level] = field(default_factory=dict)

    def moved(self, transition: Transition) -> None:
        """To be told of every transition."""
        before, after, level = transition.before, transition.after, transition.level
        if after is State.WAKING:
            self._woken_from[transition.model] = level or 2
        elif (before, after) == (State.WAKING, State.AWAKE):
            self.wakes[self._woken_from[transition.model]] += 1
        elif after is State.ASLEEP and before is not State.WAKING and level:
            self.sleeps[level] += 1


@dataclass(frozen=True, slots=True)
class Outcome:
    tally: Tally
    seconds: float
    """Until the last request was over."""
    bytes_moved: int
    busy_share: float
    """Of the device's memory over time: held by models that generate."""
    used_share: float
    """Held by any."""


async def replay(
    trace: Iterable[Request],
    config: Config,
    machine: Callable[[VirtualTimers], Machine],
    ranking: Ranking,
    watch: Watch,
) -> Outcome:
    timers = VirtualTimers()
    stage = machine(timers)
    fleet = Fleet(config, timers, backend=stage, ranking=ranking)
    tally = Tally()
    fleet.events.subscribe(tally.moved)
    fleet.events.subscribe(watch)
    for model in config.models:
        await fleet.opened(model.name)  # in a thread, which no virtual clock waits for
    await fleet.start()
    begun = timers.now()
    await _send(trace, fleet, timers, tally)
    seconds = timers.now() - begun
    stage.count()
    await fleet.close()
    whole = max(seconds, 1e-9) * stage.memory_state().total
    return Outcome(
        tally, seconds, stage.bytes_moved, stage.busy_byte_seconds / whole, stage.used_byte_seconds / whole
    )


async def _send(trace: Iterable[Request], fleet: Fleet, timers: VirtualTimers, tally: Tally) -> None:
    """Send each request in its moment; return when all are over."""
    begun = timers.now()
    under_way: set[asyncio.Task[None]] = set()
    for request in trace:
        await timers.advance(begun + request.at - timers.now())
        task = asyncio.create_task(_ask(request, fleet, tally))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    while under_way:
        await timers.advance_to_next()


async def _ask(request: Request, fleet: Fleet, tally: Tally) -> None:
    tally.requests += 1
    work = GenerateRequest(
        prompt_ids=range(request.prompt_tokens), sampling=SamplingParams(max_tokens=request.max_tokens)
    )
    try:
        async with fleet.lease(request.model) as lease:
            tally.waits.append(lease.queue_seconds + lease.wake_seconds)
            tally.cold += lease.wake_seconds > 0
            async for _ in lease.generate(work):
                pass
        tally.answered += 1
    except ApiError as error:
        tally.refused[error.status] += 1
