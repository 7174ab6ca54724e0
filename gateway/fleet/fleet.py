"""The fleet: names to models, and what can be asked of them. All else follows from plans (``planning``)."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import PurePath
from typing import Literal

import engine as local_engine
from engine import ALL_TAGS, DeviceError, Engine, Level, Tag
from gateway.config import Config, ModelConfig
from gateway.errors import ApiError, ModelAsleep, ModelReplaced, ShuttingDown
from gateway.fleet.budget import Backend, Memory
from gateway.fleet.events import Events
from gateway.fleet.idle import Timers
from gateway.fleet.lease import Lease, Ticket
from gateway.fleet.planning import DEEPEST, Planning
from gateway.fleet.ranking import Ranking, least_loss
from gateway.fleet.reconfigure import Changes, compare
from gateway.fleet.roster import Roster
from gateway.fleet.served_model import ServedModel
from gateway.fleet.state import Cause, State
from gateway.fleet.status import ModelStatus, status_of

logger = logging.getLogger("dormouse.fleet")


class Fleet:
    def __init__(
        self,
        config: Config,
        timers: Timers,
        *,
        backend: Backend = local_engine,
        ranking: Ranking = least_loss,
    ) -> None:
        self.config = config
        self.events = Events()
        self.draining = False
        self._timers = timers
        self._memory = Memory(config.memory, backend)
        self._models = Roster(self._served(model) for model in config.models)
        self._planning = Planning(self._models, self._memory, timers, config.turns, ranking)
        self._begun = False
        self._drained = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # Its life

    async def start(self) -> None:
        """Wake the preloads and open what is on this machine, in the background."""
        self._planning.start()
        self._spawn(self._begin())

    @property
    def ready(self) -> bool:
        """What ``start`` began is done, or has failed, and newcomers are welcome."""
        return self._begun and not self.draining

    async def drain(self) -> None:
        """Refuse newcomers and all who wait; return when nothing is in flight."""
        self.draining = True
        for model in self._models:
            model.queue.turn_away(_shutting_down)
        while any(model.queue.active for model in self._models.stirring):
            self._drained.clear()
            await self._drained.wait()

    def abort(self) -> None:
        """Cut all that is in flight."""
        for model in self._models.all:
            self._cut(model, _shutting_down)

    async def close(self) -> None:
        """Give everything back. What is still in flight ends with an error."""
        self.draining = True
        self._planning.close()
        self._timers.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(model.close() for model in self._models.all))

    # Looking: never wakes, never touches a timer

    def resolve(self, name: str) -> ModelConfig:
        return self._models[name].config

    def is_open(self, name: str) -> bool:
        return self._models[name].engine is not None

    async def opened(self, name: str) -> Engine:
        """For a request: its engine, with config, tokenizer and template, whether awake or not."""
        while True:
            model = self._models[name]
            model.at_opening += 1
            try:
                with suppress(ModelReplaced):
                    return await model.opened()
            finally:
                model.at_opening -= 1

    def is_sleeping(self, name: str | None) -> bool:
        """Cold and half-woken count as asleep; without a name: do all sleep?"""
        models = self._models if name is None else [self._models[name]]
        return all(model.state not in (State.AWAKE, State.DRAINING) for model in models)

    async def read_lengths(self) -> None:
        """See to it that ``max_model_len`` is known of every model whose files are on this machine."""
        unknown = [model for model in self._models if model.max_model_len is None]
        if unknown:
            lengths = await asyncio.to_thread(self._memory.lengths, [model.config for model in unknown])
            for model, length in zip(unknown, lengths, strict=True):
                model.length = length

    def status(self) -> list[ModelStatus]:
        now = self._timers.now()
        return [status_of(model, now) for model in self._models]

    def status_of(self, name: str) -> ModelStatus:
        return status_of(self._models[name], self._timers.now())

    def memory(self) -> dict[str, dict[str, int]]:
        """The first model's device, and what of the host parked weights may take; in bytes."""
        models = self._models.all
        device = next((model.device for model in models if model.device), "auto")
        on_device = [model.footprint() for model in models if model.device == device]
        return {
            "device": asdict(self._memory.device(device, on_device)),
            "host": asdict(self._memory.host(model.footprint() for model in models)),
        }

    def fault(self) -> tuple[str, str] | None:
        """A model whose engine cannot be trusted, and why."""
        for model in self._models.all:
            if model.engine and (reason := model.engine.fault()):
                return model.name, reason
        return None

    @property
    def device_lost(self) -> str | None:
        """What a device said as it failed; nothing on it can go on in this process."""
        return next((model.device_error for model in self._models.all if model.device_error), None)

    # Using

    @asynccontextmanager
    async def lease(
        self, name: str, *, engine: Engine | None = None, keep_alive: float | None = None
    ) -> AsyncIterator[Lease]:
        """A place at an awake model; leaving it ends the request, wherever it is. Raises ModelReplaced when
        its engine is not ``engine``, which the request was prepared for, any more."""
        model = self._models[name]
        self._refuse_when_draining()
        if engine and model.engine is not engine:
            raise _replaced(name)
        self._models.rouse(model)
        ticket = model.accept(keep_alive)
        lease = None
        try:
            await self._granted(model, ticket)
            lease = model.lease(ticket)
            yield lease
        except DeviceError as error:
            model.device_error = str(error)
            raise
        finally:
            if lease is None or lease.idle:
                self._release(model, ticket)
            else:
                await asyncio.shield(self._spawn(self._end(model, ticket, lease)))

    async def wake(self, name: str | None, tags: frozenset[Tag] = ALL_TAGS) -> bool:
        """Wake by hand, cool-down or not; without a name, all. True when whole."""
        models = list(self._models) if name is None else [self._models[name]]
        self._refuse_when_draining()
        await asyncio.gather(*(self._woken(m, "manual", m.config.max_wait, tags) for m in models))
        return all(model.held == ALL_TAGS for model in models)

    async def sleep(
        self, name: str | None, level: Level | None = None, mode: Literal["wait", "abort"] = "wait"
    ) -> Level:
        """Put to sleep by hand, when what is in flight is over or cut; without a name, all that are not
        pinned. The deepest level reached."""
        unpinned = [model for model in self._models if not model.pinned]
        models = unpinned if name is None else [self._models[name]]
        levels = await asyncio.gather(*(self._put_to_sleep(model, level, mode) for model in models))
        return max(levels, default=DEEPEST)

    def pin(self, name: str, pinned: bool) -> None:
        """Whether it may sleep only by hand, until this process ends or the configuration of that changes."""
        model = self._models[name]
        self._models.rouse(model)
        model.pinned = pinned
        self._planning.soon()

    async def reload_weights(self, name: str | None) -> None:
        """Adopt the files as they are now, when what is in flight is over; without a name, of all. Who sleeps
        goes on sleeping. Raises FilesRefused, and that model goes on as it is."""
        models = list(self._models) if name is None else [self._models[name]]
        await asyncio.gather(*(self._adopt_files(model) for model in models))

    async def reset_prefix_cache(self, name: str | None) -> None:
        """Of a model, or without a name of all. Those that sleep have none, and go on sleeping."""
        models = self._models if name is None else [self._models[name]]
        awake = [model for model in models if model.state in (State.AWAKE, State.DRAINING)]
        for model in awake:
            self._models.rouse(model)
        await asyncio.gather(*(model.engine.reset_prefix_cache() for model in awake if model.engine))

    def reconfigure(self, config: Config) -> Changes:
        """Serve by ``config`` from now on. Models that keep their engine go on undisturbed; what is in
        flight on the others is finished. Failed ones may try again."""
        changes = compare(self.config.models, config.models)
        self.config = config
        self._memory.configure(config.memory)
        self._planning.turns = config.turns
        staying = {model.name: model for model in self._models}
        leaving = [staying.pop(name) for name in changes.removed + changes.replaced]
        models = [staying.get(section.name) or self._served(section) for section in config.models]
        for model, section in zip(models, config.models, strict=True):
            model.configure(section)
        self._models.enrol(models)
        for model in leaving:
            self._dismiss(model, _replaced if model.name in changes.replaced else self._models.not_found)
        for model in staying.values():
            self._models.rouse(model)
            model.try_again()
            self._planning.rearm(model)
        self._spawn(self._welcome([model for model in models if model.name not in staying]))
        self._planning.soon()
        return changes

    # How

    def _dismiss(self, model: ServedModel, why: Callable[[str], ApiError]) -> None:
        self._models.rouse(model)
        model.dismiss(partial(why, model.name))
        self._spawn(self._leave(model))

    async def _leave(self, model: ServedModel) -> None:
        await model.leave()
        self._planning.soon()

    def _served(self, config: ModelConfig) -> ServedModel:
        return ServedModel(
            config,
            open_engine=self._memory.open,
            now=self._timers.now,
            events=self.events,
            changed=lambda: self._planning.soon(),
        )

    def _refuse_when_draining(self) -> None:
        if self.draining:
            raise _shutting_down()

    async def _begin(self) -> None:
        await self._welcome(list(self._models))
        self._begun = True

    async def _welcome(self, models: Sequence[ServedModel]) -> None:
        here = [model for model in models if PurePath(model.config.path).is_absolute()]
        preloads = [self._preload(model) for model in models if model.config.preload]
        await asyncio.gather(*preloads, self._open(here))

    async def _open(self, models: Iterable[ServedModel]) -> None:
        for model in models:
            try:
                await model.opened()
            except ApiError as error:
                logger.error("%s", error)

    async def _preload(self, model: ServedModel) -> None:
        try:
            await self._woken(model, "preload", math.inf, ALL_TAGS)
        except ApiError as error:
            logger.error("%s", error)

    async def _woken(self, model: ServedModel, cause: Cause, max_wait: float, tags: frozenset[Tag]) -> None:
        self._models.rouse(model)
        ticket = model.ask(cause, max_wait, tags)
        try:
            await self._granted(model, ticket)
        finally:
            self._release(model, ticket)

    async def _granted(self, model: ServedModel, ticket: Ticket) -> None:
        if not ticket.granted.done():
            self._planning.waits(model)
        await ticket.granted

    def _cut(self, model: ServedModel, error: Callable[[], ApiError]) -> None:
        """End all that is in flight, without waiting for those who have not read what there is."""
        model.queue.abort(error)
        for ticket in tuple(model.queue.active):
            if ticket.lease:
                self._spawn(self._end(model, ticket, ticket.lease))

    async def _end(self, model: ServedModel, ticket: Ticket, lease: Lease) -> None:
        try:
            await lease.close()
        finally:
            self._release(model, ticket)

    def _release(self, model: ServedModel, ticket: Ticket) -> None:
        model.release(ticket)
        self._planning.released(model)
        if self.draining and not any(other.queue.active for other in self._models.stirring):
            self._drained.set()

    async def _put_to_sleep(
        self, model: ServedModel, level: Level | None, mode: Literal["wait", "abort"]
    ) -> Level:
        await model.quiet()
        self._models.rouse(model)
        if mode == "abort" and model.suspended:
            self._cut(model, _put_to_sleep)
        if model.device is None or not model.loaded:
            return DEEPEST
        goes_on = mode == "wait" and model.queue.active  # if it is suspended, it has its turns first
        asleep = not model.held and (model.level is None or level is None or model.level >= level)
        if asleep and not goes_on:
            return model.level or DEEPEST
        target = self._planning.level_that_fits(model, level or model.config.level)
        drain = self._planning.sleep_by_hand(model, target)
        if mode == "abort":
            self._cut(model, _put_to_sleep)
        return await asyncio.shield(drain.done)

    async def _adopt_files(self, model: ServedModel) -> None:
        await model.quiet()
        if not model.loaded and model.state is not State.FAILED:
            return  # they are read when it is loaded
        self._models.rouse(model)
        adoption = model.adopt_by_hand()
        self._planning.soon()
        await asyncio.shield(adoption.done)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _replaced(name: str) -> ModelReplaced:
    return ModelReplaced(f"the configuration of {name} has just been changed; ask again", retry_after=1.0)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the server is shutting down", retry_after=5.0)


def _put_to_sleep() -> ModelAsleep:
    return ModelAsleep("the model was put to sleep by force", retry_after=1.0)
