"""One CPU or GPU: its worker thread, and the engines that live on it.

The worker runs one step of one engine at a time, in turn among those that have work, and between steps
whatever must not run beside a step. Two engines that step at once would fight over the same cores.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

import torch

from engine.graphs import GraphRecorder
from engine.kv_cache import KVCache
from engine.memory.arena import ArenaFactory
from engine.memory.budget import Budget
from engine.memory.copies import HostCopies
from engine.memory.cpu import trim_allocator
from engine.memory.sizes import PAGE
from engine.pace import Pace, computed_at_once
from engine.store import RamStore, StoreFactory
from engine.types import DeviceError, EngineError

T = TypeVar("T")

log = logging.getLogger("dormouse.engine")

_LOST = ("CUDA error", "CUDA driver error", "Triton Error [CUDA]")
_FULL = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Stepper(Protocol):
    """What the worker sees of an engine."""

    @property
    def has_work(self) -> bool: ...

    def step(self) -> None:
        """One step; handles its own failures."""

    def fail(self, error: Exception) -> None:
        """A step raised nevertheless; it was the last."""


class Device:
    """``make_arena`` gives address ranges on it, ``budget`` bounds what they hold together. The worker is a
    daemon, started with the first engine."""

    def __init__(
        self,
        name: str,
        make_arena: ArenaFactory,
        budget: Budget | None = None,
        make_store: StoreFactory = RamStore,
        page: int = PAGE,
        graphs: GraphRecorder | None = None,
        pace: Pace = computed_at_once,
        copies: HostCopies | None = None,
    ) -> None:
        """``make_store``: for the weights in one of its arenas, and whether to copy them early. ``page``: its
        smallest piece of memory."""
        self.name = name
        self.graphs = graphs
        self.pace = pace
        self.make_store = make_store
        self.page = page
        self.budget = budget or Budget()
        self._copies = copies
        self.caches: list[KVCache] = []
        """Those of all its engines: each may ask the others for what they do not use."""
        self.torch_device = torch.device(name)
        self.make_arena = make_arena
        self._steppers: deque[Stepper] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self.chores: list[Callable[[], bool]] = []
        """What the worker does in quiet moments, a little at a time; each tells whether it did something."""
        self._quiet = False
        """Nothing has happened since no chore was left to do."""
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

    def limit_memory(self, limit: int | None, host_limit: int | None) -> None:
        """What all its engines may hold together on it, and beside it in the host's memory. Blocking."""
        self.budget.limit = limit
        if self._copies is not None:
            self._copies.limit(host_limit)

    def add(self, stepper: Stepper) -> None:
        with self._wake:
            self._steppers.append(stepper)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"worker-{self.name}", daemon=True)
                self._thread.start()

    def remove(self, stepper: Stepper) -> None:
        with self._wake:
            if stepper in self._steppers:
                self._steppers.remove(stepper)

    def notify(self) -> None:
        """An engine has new work, or there may be a chore."""
        with self._wake:
            self._quiet = False
            self._wake.notify()

    def others_wait(self, stepper: Stepper) -> bool:
        """Whether there is work for the worker beside this engine's."""
        with self._wake:
            return bool(self._jobs) or any(one.has_work for one in self._steppers if one is not stepper)

    async def between_steps(self, job: Callable[[], T]) -> T:
        """Run ``job`` on the worker thread, when no engine is in a step. It runs even if the caller is
        cancelled meanwhile."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)

        with self._wake:
            self._jobs.append(run)
            self._wake.notify()
        return await asyncio.shield(asyncio.wrap_future(future))

    async def beside_steps(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a thread of its own, to its end: a caller who is cancelled waits for it
        nevertheless, since nobody else may touch the model meanwhile."""
        running = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            running.exception()  # marks it as seen
            raise

    def _work(self) -> None:
        if self.torch_device.type == "cuda":
            torch.cuda.set_device(self.torch_device)  # where kernels are launched
        while True:
            with self._wake:
                while self._quiet and not self._jobs and not any(s.has_work for s in self._steppers):
                    self._wake.wait()
                jobs = list(self._jobs)
                self._jobs.clear()
                stepper = None if jobs else self._next()
            for job in jobs:
                job()
            if stepper is not None:
                try:
                    stepper.step()
                except Exception as error:  # a bug in one engine is not the end of the others
                    self.remove(stepper)
                    stepper.fail(error)
            elif not jobs:
                self._rest()

    def _rest(self) -> None:
        """Do one chore, if there is any, else give back what was kept for the next step."""
        with self._wake:
            self._quiet = True  # before looking, so that a notice that comes meanwhile is not lost
        for chore in list(self.chores):
            try:
                done = chore()
            except Exception:
                log.exception("a chore failed, and is given up")
                self.chores.remove(chore)
                continue
            if done:
                self.notify()
                return
        trim_allocator()

    def _next(self) -> Stepper | None:
        """The engine whose turn it is, by round robin."""
        for _ in range(len(self._steppers)):
            stepper = self._steppers[0]
            self._steppers.rotate(-1)
            if stepper.has_work:
                return stepper
        return None


class StepClock:
    """How long steps take, so that a stuck one is seen from outside."""

    def __init__(self) -> None:
        self.last_step_at: float | None = None
        self._started_at: float | None = None
        self._recent: deque[float] = deque(maxlen=100)

    def __enter__(self) -> None:
        self._started_at = time.monotonic()

    def __exit__(self, *exc: object) -> None:
        self.last_step_at = time.monotonic()
        self._recent.append(self.last_step_at - (self._started_at or self.last_step_at))
        self._started_at = None

    def stuck(self) -> float | None:
        """Seconds that the step under way has run, when that is longer than any honest step takes."""
        started = self._started_at
        if started is None:
            return None
        running = time.monotonic() - started
        return running if running > max(60.0, 20 * max(self._recent, default=0.0)) else None


def step_failed(error: Exception) -> EngineError:
    """What those are told whose step ended with ``error``."""
    if isinstance(error, EngineError):
        return error
    log.exception("a step failed", exc_info=error)
    return (DeviceError if _is_devices(error) else EngineError)(f"a step failed: {error}")


def _is_devices(error: Exception) -> bool:
    """Whether the device is lost. Torch and Triton tell it in words; that memory is short is no loss."""
    text = str(error)
    full = isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in _FULL)
    return isinstance(error, RuntimeError) and not full and any(sign in text for sign in _LOST)
