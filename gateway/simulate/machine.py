"""A machine that is not there: memories, a disk, a bus, and engines that take time and make no tokens.

The device steps its busy engines in turn, a token for every running sequence in each round; prompts are
computed in chunks. What is read or copied at the same time shares the disk's or the bus's rate. With
``host_memory`` the device has memory of its own (a GPU), without it lives in the host's (a CPU).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from typing import cast

from engine import (
    ALL_TAGS,
    Delta,
    Engine,
    EngineOptions,
    Estimate,
    Footprint,
    GenerateRequest,
    Level,
    MemoryState,
    OutOfMemory,
    Tag,
    TransitionReport,
)
from gateway.fleet import VirtualTimers
from gateway.simulate.costs import Costs
from gateway.simulate.sharing import Job, Shared

CHUNK = 64
"""Tokens of a prompt that are computed in one step."""
TOKEN = [Delta(token_ids=(0,))]
KV_SHARE = 16
"""An awake model that is not trimmed holds a sixteenth of its weights' bytes for KV."""


class Machine:
    """Stands in for the ``engine`` package. ``sizes`` are the bytes of weights by path."""

    def __init__(
        self,
        timers: VirtualTimers,
        costs: Costs,
        sizes: Mapping[str, int],
        device_memory: int,
        host_memory: int | None = None,
    ) -> None:
        self.timers = timers
        self.costs = costs
        self.shared = host_memory is None
        self.device_used = self.host_used = 0
        self.busy_bytes = 0
        """Of the device's bytes, those of models that generate."""
        self.busy_byte_seconds = self.used_byte_seconds = 0.0
        self.bytes_moved = 0
        self._fills = {1: self._fill(1), 2: self._fill(2)}
        self._sizes = sizes
        self._device_memory = device_memory
        self._host_memory = device_memory if host_memory is None else host_memory
        self._host_limit = self._host_memory
        self.spare: dict[SimulatedEngine, None] = {}
        """Those that are awake and have a copy, in the order of their wakes."""
        self._round_seconds = 0.0
        self._steps = Shared(timers, "steps", lambda: 1.0 / self._round_seconds)
        self._counted_at = timers.now()

    def open(self, path: str, device: str = "auto", options: EngineOptions | None = None) -> Engine:
        if options and options.host_limit is not None:
            self._host_limit = options.host_limit
        # It has what a fleet asks of an engine and nothing beyond.
        return cast("Engine", SimulatedEngine(self, self._sizes[path]))

    def estimate(self, path: str, options: EngineOptions | None = None, device: str = "cpu") -> Estimate:
        return Estimate(
            weights_bytes=self._sizes[path],
            least_bytes=self._sizes[path] + self._sizes[path] // KV_SHARE,
            kv_bytes_per_token=0,
            max_model_len=1,
            architecture="simulated",
        )

    def max_model_len(self, path: str, options: EngineOptions | None = None) -> int:
        return 1

    def memory_state(self, device: str = "auto") -> MemoryState:
        if device == "cpu" and not self.shared:
            total, used = self._host_memory, self.host_used
        else:
            total, used = self._device_memory, self.device_used
        return MemoryState(total=total, available=total - used, shared_with_host=self.shared)

    def limit_memory(self, device: str, limit: int, host_limit: int) -> None:
        """There is none on the device but the fleet's own."""
        self._host_limit = host_limit

    def has_room_for_copy(self, size: int) -> bool:
        """Whether the host has it beside all others."""
        return self.host_used + size <= min(self._host_limit, self._host_memory)

    def make_room_for_copy(self, size: int) -> bool:
        """Whether the host has it once spare copies have given way, which then they have."""
        spare = sum(engine.footprint().host_copy for engine in self.spare)
        if not self.has_room_for_copy(size - spare):
            return False
        while not self.has_room_for_copy(size):
            next(iter(self.spare)).give_copy_back()
        return True

    def count(self) -> None:
        """Add up the bytes over time; to be called before any of them change."""
        now = self.timers.now()
        self.busy_byte_seconds += (now - self._counted_at) * self.busy_bytes
        self.used_byte_seconds += (now - self._counted_at) * self.device_used
        self._counted_at = now

    async def run(self, engine: SimulatedEngine, tokens: int, steps: float) -> float:
        """So many steps of the engine, each with so many tokens of one sequence, or fewer when the engine is
        suspended: how many."""

        def joins(count: int) -> None:
            engine.running += count
            seconds = count * tokens * self.costs.per_token
            if engine.running == max(count, 0):  # the first of its sequences, or the last
                seconds += count * self.costs.per_step
            self._round_seconds = self._round_seconds + seconds * engine.weights if self._steps.jobs else 0.0

        job = Job(joins)
        engine.jobs.add(job)
        try:
            return await self._steps.work(steps, job)
        finally:
            engine.jobs.discard(job)

    async def fill(self, level: Level, size: int) -> None:
        """Bring in bytes from where a level's sleep left them, or take them there."""
        if size and self.costs.level(level).bytes_per_second:
            self.bytes_moved += size
            await self._fills[level].work(size, Job())

    def _fill(self, level: Level) -> Shared:
        rate = self.costs.level(level).bytes_per_second or math.inf
        share = Shared(self.timers, f"fill {level}", lambda: rate / share.jobs)
        return share


class SimulatedEngine:
    """One model: bytes that come and go."""

    def __init__(self, machine: Machine, weights: int) -> None:
        self.weights = weights
        self.running = 0
        """Sequences in the device's rounds."""
        self.jobs: set[Job] = set()
        self._machine = machine
        self._first_kv = weights // KV_SHARE
        self._requests = 0
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._went_on = asyncio.Event()
        self._kv_is_kept = True
        self._was_read = False
        self._busy_bytes = 0
        self._bytes = Footprint(to_wake=weights + self._first_kv)

    def footprint(self) -> Footprint:
        return self._bytes

    async def load(self) -> None:
        """There is nothing to prepare."""

    async def wake(self, tags: frozenset[Tag] = ALL_TAGS) -> TransitionReport:
        machine, before = self._machine, self._bytes
        if before.to_wake > (available := machine.memory_state().available):
            raise OutOfMemory(before.to_wake, available)
        level: Level = 1 if before.host_copy else 2
        missing = self.weights - before.weights
        began = machine.timers.now()
        self._hold(self.weights, self._first_kv, 0 if machine.shared else self._copy())
        await machine.timers.sleep(machine.costs.level(level).wake_seconds)
        await machine.fill(level, missing)
        if self._bytes.host_copy:
            machine.spare[self] = None
        return TransitionReport(seconds=machine.timers.now() - began, bytes=missing)

    async def sleep(self, level: Level) -> TransitionReport:
        machine, before = self._machine, self._bytes
        began = machine.timers.now()
        machine.spare.pop(self, None)
        await machine.timers.sleep(machine.costs.level(level).sleep_seconds)
        copy = self.weights if level == 1 else 0
        if copy > before.host_copy and not machine.shared:
            copy = copy if machine.make_room_for_copy(copy) else 0
            self._hold(before.weights, self._bytes.kv, copy)
            await machine.fill(1, copy)
        self._hold(copy if machine.shared else 0, self._kept(), copy)
        freed = before.device - self._bytes.device
        return TransitionReport(seconds=machine.timers.now() - began, bytes=freed)

    async def suspend(self, *, keep_kv: bool) -> None:
        self._goes_on.clear()
        self._kv_is_kept = keep_kv
        for job in self.jobs:
            job.stop()
        self._hold(self._bytes.weights, self._bytes.kv, self._bytes.host_copy)

    async def resume(self) -> None:
        self._went_on.clear()
        if self._kv_is_kept or not self._requests:
            self._went_on.set()
        self._goes_on.set()
        self._hold(self._bytes.weights, self._bytes.kv, self._bytes.host_copy)

    async def went_on(self) -> None:
        await self._went_on.wait()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Delta]]:
        prompt, answer = len(request.prompt_ids), request.sampling.max_tokens
        self._join(1)
        try:
            await self._compute(prompt, 0)
            self._went_on.set()
            yield TOKEN
            if answer > 1:
                await self._compute(prompt, answer - 1)
                yield TOKEN
        finally:
            self._join(-1)
            if not self._requests:
                self._went_on.set()

    async def trim_kv(self) -> int:
        kept = self._first_kv if self._requests and self._goes_on.is_set() else self._kept()
        freed = max(0, self._bytes.kv - kept)
        self._hold(self._bytes.weights, self._bytes.kv - freed, self._bytes.host_copy)
        return freed

    async def trim_copy(self) -> int:
        return self.give_copy_back() if self in self._machine.spare else 0

    def give_copy_back(self) -> int:
        freed = self._bytes.host_copy
        del self._machine.spare[self]
        self._hold(self._bytes.weights, self._bytes.kv, 0)
        return freed

    async def close(self) -> None:
        self._machine.spare.pop(self, None)
        self._hold(0, 0, 0)

    async def _compute(self, prompt: int, answer: int) -> None:
        """The prompt, or after it so much of the answer; the prompt again where its KV was given up."""
        tokens, steps = (1, float(answer)) if answer else (min(prompt, CHUNK), math.ceil(prompt / CHUNK))
        while steps > 0:
            await self._goes_on.wait()
            steps -= await self._machine.run(self, tokens, steps)
            if answer and steps > 0 and not self._kv_is_kept:
                await self._compute(prompt, 0)
                self._went_on.set()

    def _copy(self) -> int:
        """What a wake has in the host's memory: a copy is made while the files are first read, if there is
        room."""
        first, self._was_read = not self._was_read, True
        makes = first and self._machine.has_room_for_copy(self.weights)
        return self.weights if makes else self._bytes.host_copy

    def _kept(self) -> int:
        """KV of what is suspended."""
        suspended = self._requests and not self._goes_on.is_set()
        return min(self._bytes.kv, self._first_kv) if suspended and self._kv_is_kept else 0

    def _join(self, count: int) -> None:
        self._requests += count
        awake = self._goes_on.is_set()
        kv = self._first_kv if count > 0 and awake else self._bytes.kv
        self._hold(self._bytes.weights, kv, self._bytes.host_copy)

    def _hold(self, weights: int, kv: int, host_copy: int) -> None:
        """From now on; the machine's sums follow."""
        machine, before = self._machine, self._bytes
        machine.count()
        self._bytes = Footprint(
            weights=weights,
            kv=kv,
            kept=min(kv, self._kept()),
            host_copy=host_copy,
            to_wake=self.weights - weights + self._first_kv - kv,
        )
        machine.device_used += self._bytes.device - before.device
        machine.host_used += host_copy - before.host_copy
        busy = self._bytes.device if self._requests and self._goes_on.is_set() else 0
        machine.busy_bytes += busy - self._busy_bytes
        self._busy_bytes = busy
