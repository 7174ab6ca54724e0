"""Whatever way a lease ends, nothing of it runs on the engine afterwards."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from engine import GenerateRequest, SamplingParams
from gateway.errors import ApiError, ShuttingDown
from gateway.fleet import Lease, State
from tests.fake_engine import FakeSpec
from tests.gateway.fleet.world import World, world

SLOW = FakeSpec(token_seconds=1.0)


def request(tokens: int = 100) -> GenerateRequest:
    return GenerateRequest(prompt_ids=[120], sampling=SamplingParams(max_tokens=tokens))


def nothing_is_left(w: World) -> bool:
    return w.fleet.status_of("a").in_flight == 0 and w.engine("a").running == 0


async def test_stream_left_in_its_middle_is_closed_with_the_lease() -> None:
    async with world({"a": FakeSpec()}) as w:
        async with w.fleet.lease("a") as lease:
            stream = lease.generate(request())
            assert (await anext(stream))[0].text == "H"
            assert w.engine("a").running == 1
        assert nothing_is_left(w)
        assert await w.fleet.sleep("a", 2) == 2
        await stream.aclose()


async def test_stream_read_by_another_task_is_cut_when_the_lease_ends() -> None:
    async with world({"a": SLOW}) as w:

        async def read(lease: Lease) -> None:
            async for _ in lease.generate(request()):
                pass

        async def send() -> None:
            async with w.fleet.lease("a") as lease:
                reading.append(asyncio.create_task(read(lease)))
                await w.timers.sleep(2.5)

        reading: list[asyncio.Task[None]] = []
        sending = asyncio.create_task(send())
        await w.advance(2.0)
        assert w.engine("a").running == 1
        await w.advance(1.0)
        sending.result()
        assert nothing_is_left(w)
        assert isinstance(reading[0].exception(), ApiError)


async def test_cut_twice_it_ends_with_the_error() -> None:
    async with world({"a": SLOW}) as w:

        async def read() -> None:
            async with w.fleet.lease("a") as lease:
                leases.append(lease)
                async for _ in lease.generate(request()):
                    pass

        leases: list[Lease] = []
        reading = asyncio.create_task(read())
        await w.advance(2.0)
        for _ in range(2):
            leases[0]._ticket.abort(ApiError("enough"))
        await w.advance(1.0)
        assert isinstance(reading.exception(), ApiError)
        assert nothing_is_left(w)


async def test_several_streams_of_one_lease() -> None:
    async with world({"a": SLOW}) as w:

        async def read(lease: Lease) -> str:
            return "".join([deltas[0].text async for deltas in lease.generate(request(3))])

        async def send() -> list[str]:
            async with w.fleet.lease("a") as lease, asyncio.TaskGroup() as group:
                reading = [group.create_task(read(lease)) for _ in range(3)]
            return [task.result() for task in reading]

        sending = asyncio.create_task(send())
        await w.advance(4.0)
        assert sending.result() == ["Hel"] * 3
        assert nothing_is_left(w)


@pytest.mark.parametrize("cancellations", [1, 2, 3])
async def test_cancelled_handler_leaves_nothing(cancellations: int) -> None:
    async with world({"a": SLOW}, a={"idle_timeout": 5.0}) as w:

        async def send() -> None:
            async with w.fleet.lease("a") as lease:
                async for _ in lease.generate(request()):
                    await w.timers.sleep(0.5)

        for moment in (0.2, 1.2, 1.7):
            sending = asyncio.create_task(send())
            await w.advance(moment)
            for _ in range(cancellations):
                sending.cancel()
                await asyncio.sleep(0)
            await w.advance(0.1)
            assert sending.cancelled()
            assert nothing_is_left(w)
        await w.advance(6.0)
        assert w.state("a")[0] is State.ASLEEP


async def test_time_spent_in_queue_and_wake_is_told() -> None:
    async with world({"a": FakeSpec(load_seconds=0.5, wake_seconds=2.0)}) as w:
        first = w.ask("a")
        await w.advance(1.0)
        second = w.ask("a")
        await w.advance(5.0)
        assert (first.result().queue_seconds, first.result().wake_seconds) == (0.0, 2.5)
        assert second.result().queue_seconds + second.result().wake_seconds == pytest.approx(1.5)
        third = await w.answered("a")
        assert (third.queue_seconds, third.wake_seconds) == (0.0, 0.0)


async def test_engine_error_in_mid_stream_reaches_the_handler() -> None:
    async with world({"a": FakeSpec()}) as w:
        w.spec("a").failures["generate"] = [RuntimeError("a bug")]
        with pytest.raises(RuntimeError, match="a bug"):
            await w._ask("a", "x", 10, None)
        assert nothing_is_left(w)


async def test_abort_of_the_whole_fleet_cuts_everything() -> None:
    async with world({"a": SLOW, "b": SLOW}) as w:
        asked = [w.ask("a"), w.ask("b")]
        await w.advance(1.5)
        w.fleet.abort()
        await w.advance()
        for task in asked:
            assert isinstance(task.exception(), ShuttingDown)
        assert nothing_is_left(w)


async def test_timeout_of_the_engine_is_not_taken_for_an_abort() -> None:
    async with world({"a": FakeSpec()}) as w:
        w.spec("a").failures["generate"] = [TimeoutError("the engine's own")]
        with pytest.raises(TimeoutError, match="own"):
            await w._ask("a", "x", 10, None)
        with suppress(TimeoutError):
            await w._ask("a", "x", 10, None)
