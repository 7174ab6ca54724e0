"""What is done with a model's engine, one operation at a time.

An operation runs to its end whoever has left meanwhile. Whatever it fails with ends here: the model is then
failed and cools down, and who waits for it has been told why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from engine import ALL_TAGS, CheckpointError, DeviceError, Engine, EngineError, OutOfMemory, Tag
from gateway.config import ModelConfig
from gateway.errors import ApiError, FilesRefused, ModelWakeFailed
from gateway.fleet.budget import Opened
from gateway.fleet.events import WakeRecord
from gateway.fleet.model_state import ModelState
from gateway.fleet.queue import NO_TAGS
from gateway.fleet.state import State

logger = logging.getLogger("dormouse.fleet")


class Operations:
    """``ended`` is called after each, and ``changed`` when a turn has begun."""

    def __init__(
        self,
        model: ModelState,
        open_engine: Callable[[ModelConfig], Opened],
        *,
        ended: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.opening: asyncio.Task[None] | None = None
        self._model = model
        self._open_engine = open_engine
        self._ended = ended
        self._changed = changed

    def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """One of those below."""
        model = self._model
        assert model.operation is None, f"{model.name}: two operations at once"
        model.operation = asyncio.create_task(self._run(work), name=f"dormouse:{model.name}")

    @property
    def under_way(self) -> list[asyncio.Task[None]]:
        return [task for task in (self.opening, self._model.operation, self._model.catching_up) if task]

    async def opened(self) -> Engine:
        """The engine, opened once for all who ask. Raises ModelWakeFailed."""
        model = self._model
        if model.engine is None and self.opening is None and not model.gone:
            if model.cooling_seconds:
                raise model.wake_failed()
            self.opening = asyncio.create_task(self._open())
        if self.opening:
            await asyncio.shield(self.opening)
        if model.gone:
            raise model.gone()
        if model.engine is None:
            raise model.wake_failed()
        return model.engine

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        model = self._model
        try:
            await work()
        except ApiError:
            pass  # it could not be opened, or is served no more, and all is said
        except OutOfMemory as error:
            model.fail(f"not enough memory: {error}")
        except CheckpointError as error:
            logger.error("%s: %s", model.name, error)
            model.fail(error.reason)
        except DeviceError as error:
            model.device_error = str(error)
            model.fail("the device failed")
        except Exception:
            logger.exception("%s: an operation failed", model.name)
            model.fail("the engine failed")
        finally:
            model.operation = None
            self._ended()

    async def _open(self) -> None:
        model = self._model
        try:
            opened = await asyncio.to_thread(self._open_engine, model.config)
            model.engine, model.device, model.estimate = opened.engine, opened.device, opened.estimate
        except CheckpointError as error:
            logger.error("%s: %s", model.name, error)
            model.fail(error.reason)
        except Exception as error:
            told = isinstance(error, EngineError)  # its message says it all
            logger.error("%s: cannot be opened: %s", model.name, error, exc_info=not told)
            model.fail("the model cannot be opened")
        finally:
            self.opening = None

    async def prepare(self) -> None:
        model = self._model
        began = model.now()
        model.enter(State.WAKING, model.cause_of_wake())
        engine = await self.opened()
        await engine.load()
        model.loaded = True
        model.waking_seconds += model.now() - began

    async def wake(self, tags: frozenset[Tag]) -> None:
        model = self._model
        assert model.engine is not None
        began, level, cause = model.now(), model.level, model.cause_of_wake()
        model.enter(State.WAKING, cause)
        try:
            report = await model.engine.wake(tags)
        except OutOfMemory as error:
            if model.shortage:
                raise
            logger.warning("%s: %s; making more room", model.name, error)
            model.shortage = max(1, error.needed - error.available)
            model.rest("memory")
            return
        seconds = model.now() - began
        model.last_wake = WakeRecord(
            seconds=seconds, bytes=report.bytes, level=level, cause=cause, phases=report.phases
        )
        model.waking_seconds += seconds
        model.held |= tags
        model.idle_since = model.now()
        model.last_error = None
        model.shortage = 0
        model.cool_down.clear()
        if model.held == ALL_TAGS:
            await self._resume(model.engine)
            model.level = None
            model.awake_since = model.now()
            model.usage.woken(level or 2, model.weights_bytes, seconds)
            model.last_used = max(model.last_used, model.awake_since)
            model.enter(State.AWAKE, cause, seconds, report.bytes)
        else:
            model.rest(cause, seconds, report.bytes)

    async def _resume(self, engine: Engine) -> None:
        """What was suspended goes on, as soon as what it had to give up is computed again."""
        model = self._model
        await engine.resume()
        if model.suspended:
            model.suspended = False
            model.catching_up = asyncio.create_task(self._catch_up(engine))

    async def _catch_up(self, engine: Engine) -> None:
        await engine.went_on()
        self._model.awake_since = self._model.now()
        self._model.catching_up = None
        self._changed()

    async def sleep(self) -> None:
        model = self._model
        drain = model.drain
        if drain is None or drain.level is None:
            return  # rescued
        assert model.engine is not None
        drain.committed = True
        if model.catching_up:
            model.catching_up.cancel()
            model.catching_up = None
        began, level = model.now(), drain.level
        try:
            if drain.keep_kv is not None and model.queue.active:
                await model.engine.suspend(keep_kv=drain.keep_kv)
                model.suspended = True
            assert model.suspended or not model.queue.active
            report = await model.engine.sleep(level)
            if not _weights(model):
                level = 2  # there was no room to keep them
        except BaseException:
            model.drain, model.held = None, NO_TAGS  # nobody knows what is left: only a wake makes it whole
            drain.fail(ApiError(f"{model.name} could not be put to sleep"))
            raise
        model.drain = None
        model.held, model.level, model.kv_in_use = NO_TAGS, level, 0
        model.rest(drain.cause, model.now() - began, report.bytes)
        drain.done.set_result(level)

    async def forget_kv(self) -> None:
        model = self._model
        assert model.engine is not None
        await model.engine.suspend(keep_kv=False)

    async def adopt_files(self) -> None:
        """After a failure."""
        model = self._model
        model.cool_down.clear()
        model.last_error = None
        await self._adopt()
        model.rest("config")

    async def adopt_by_hand(self) -> None:
        """Files that do not fit change nothing; weights that are lost over it are a failure."""
        model, adoption = self._model, self._model.adoption
        assert adoption is not None
        began, before = model.now(), _weights(model)
        try:
            await self._adopt()
            model.cool_down.clear()
            model.last_error = None
            adoption.succeed()
        except BaseException as error:
            if not isinstance(error, CheckpointError) or _weights(model) != before:
                model.drain, model.held, model.level = None, NO_TAGS, 2 if model.loaded else None
                adoption.fail(ModelWakeFailed(f"{model.name} has lost its weights over new ones"))
                raise
            logger.warning("%s: its files are not adopted: %s", model.name, error)
            adoption.fail(FilesRefused(f"{model.name} goes on as it is: {error.reason}"))
        finally:
            model.adoption = None
        if model.state is State.FAILED and not model.cool_down.failures:
            model.rest("manual")
        elif model.state is State.DRAINING and not (model.drain or model.hand):
            model.enter(State.AWAKE, "manual", model.now() - began, before)

    async def _adopt(self) -> None:
        model = self._model
        if model.engine and model.loaded:
            await model.engine.reload_weights()
        elif model.engine:
            engine, model.engine = model.engine, None  # what it has read may be what was wrong
            await engine.close()

    async def trim_kv(self) -> None:
        model = self._model
        assert model.engine is not None
        try:
            await model.engine.trim_kv()
        except Exception:
            logger.exception("%s: its KV could not be trimmed", model.name)
        model.kv_in_use = model.footprint().kv

    async def trim_copy(self) -> None:
        model = self._model
        assert model.engine is not None
        try:
            await model.engine.trim_copy()
        except Exception:
            logger.exception("%s: its copy could not be given back", model.name)


def _weights(model: ModelState) -> int:
    """Bytes, wherever they are."""
    footprint = model.footprint()
    return footprint.weights + footprint.host_copy
