"""When an answer begins, what keeps it alive, and how it ends when something or somebody fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from engine import CheckpointError, DeviceError, RequestError
from gateway.api import sse
from gateway.config import ServerConfig
from gateway.fleet import Lease
from tests.gateway.api.caller import Call, until
from tests.gateway.api.conftest import Gateway, running


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HOLD_BACK", 0.05)
    monkeypatch.setattr(sse, "HEARTBEAT", 0.02)


async def test_the_status_line_waits_for_the_first_token(gateway: Gateway) -> None:
    gateway.alpha.may_wake.clear()
    call = gateway.start_chat(stream=True)
    start = asyncio.create_task(call.start())
    await asyncio.sleep(0.1)
    assert not start.done()
    gateway.alpha.may_wake.set()
    assert (await start).status == 200


@pytest.mark.usefixtures("short_waits")
async def test_a_long_wake_begins_the_answer_with_comments(gateway: Gateway) -> None:
    gateway.alpha.may_wake.clear()
    call = gateway.start_chat(stream=True)
    start = await call.start()
    assert start.status == 200
    assert "server-timing" not in start.headers
    chunks = call.chunks()
    waited = [await anext(chunks) for _ in range(3)]
    assert waited == [b": waiting for wake\n\n"] * 3
    gateway.alpha.may_wake.set()
    body = b"".join([chunk async for chunk in chunks]).decode()
    *events, timing, done, end = body.removeprefix(": waiting for wake\n\n").split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert timing.startswith(": server-timing queue;dur=")
    assert float(timing.split("wake;dur=")[1].split(",")[0]) >= 80
    assert len(events) == 5 and all(event.startswith("data: {") for event in events)


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
async def test_who_wants_to_know_is_told_what_the_model_is_doing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, route: str, include_usage: bool
) -> None:
    monkeypatch.setattr(sse, "PROGRESS", 0.02)
    gateway.alpha.may_wake.clear()
    options = {"include_wake": True, "include_usage": include_usage}
    asked = (
        {"prompt": "x"} if route == "/v1/completions" else {"messages": [{"role": "user", "content": "x"}]}
    )
    body = {"model": "alpha", "stream": True, "stream_options": options, **asked}
    call = gateway.call("POST", route, json_body=body)
    assert (await call.start()).status == 200
    chunks = call.chunks()
    for _ in range(3):
        told = json.loads((await anext(chunks)).removeprefix(b"data: "))
        assert told["choices"] == [] and told["object"] and told["model"] == "alpha"
        assert told.get("usage", "absent") == (None if include_usage and "chat" in route else "absent")
        wake = told["wake"]
        assert (wake["state"], wake["queued"], wake["level"]) == ("waking", 1, None)
        assert wake["waiting_for"] == "wake" and wake["seconds"] > 0 and "progress" in wake
    gateway.alpha.may_wake.set()
    rest = b"".join([chunk async for chunk in chunks])
    assert rest.endswith(b"data: [DONE]\n\n") and b"Hel" in rest


@pytest.mark.usefixtures("short_waits", "beta_opens_slowly")
@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
async def test_a_model_that_is_being_opened_is_waited_for_in_the_same_way(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, route: str
) -> None:
    """It may be fetched from the hub: nothing is known of it yet, its tokenizer included."""
    monkeypatch.setattr(sse, "PROGRESS", 0.02)
    caplog.set_level("INFO", "dormouse.requests")
    asked = (
        {"prompt": "x"} if route == "/v1/completions" else {"messages": [{"role": "user", "content": "x"}]}
    )
    body = {"model": "org/beta", "stream": True, **asked}
    call = gateway.call("POST", route, json_body=body)
    curious = gateway.call("POST", route, json_body={**body, "stream_options": {"include_wake": True}})
    assert ((await call.start()).status, (await curious.start()).status) == (200, 200)
    chunks, told = call.chunks(), curious.chunks()
    assert [await anext(chunks) for _ in range(3)] == [b": waiting for opening\n\n"] * 3
    first = json.loads((await anext(told)).removeprefix(b"data: "))
    assert first["wake"] | {"seconds": 0} == {
        "state": "cold",
        "seconds": 0,
        "level": None,
        "queued": 2,
        "waiting_for": "opening",
        "progress": None,
    }
    status = gateway.fleet.status_of("org/beta")
    assert (status.in_flight, status.queued, status.waiting_for) == (2, 2, "opening")
    gateway.beta.may_open.set()
    rest = b"".join([chunk async for chunk in chunks]).decode()
    assert "Hel" in rest and float(rest.split("wake;dur=")[1].split(",")[0]) >= 80
    events = [event for event in b"".join([c async for c in told]).split(b"\n\n") if b"data: {" in event]
    assert {json.loads(event.removeprefix(b"data: "))["id"] for event in events} == {first["id"]}
    await call.ended()
    assert gateway.fleet.status_of("org/beta").in_flight == 0
    fields = caplog.records[-1].__dict__["fields"]
    assert fields["model"] == "org/beta" and fields["wake_seconds"] >= 0.08


@pytest.mark.usefixtures("short_waits", "beta_opens_slowly")
@pytest.mark.parametrize("failure", ["open", "request"])
async def test_what_fails_after_a_long_opening_is_an_error_event(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    caplog.set_level("INFO", "dormouse.requests")
    if failure == "open":
        gateway.beta.failures["open"].append(CheckpointError("no", reason="the hub does not answer"))
    call = gateway.start_chat(model="org/beta", stream=True, max_tokens=10_000)
    assert (await call.start()).status == 200
    gateway.beta.may_open.set()
    *_, error, done, end = b"".join([chunk async for chunk in call.chunks()]).decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert ("the hub does not answer" if failure == "open" else '"code":"context_length_exceeded"') in error
    await call.ended()
    assert caplog.records[-1].__dict__["fields"]["model"] == "org/beta"


async def test_a_refusal_while_it_is_opened_is_no_stream(gateway: Gateway) -> None:
    reply = await gateway.chat(model="org/beta", stream=True, max_tokens=10_000)
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("include_wake", [False, True])
async def test_each_is_told_what_it_waits_for_itself(
    monkeypatch: pytest.MonkeyPatch, include_wake: bool
) -> None:
    """At a model that runs one at a time, the first waits for its tokens and the second for a place."""
    monkeypatch.setattr(sse, "PROGRESS", 0.02)
    async with running(max_running=1) as gateway:
        gateway.alpha.may_step.clear()
        first, second = (
            gateway.start_chat(stream=True, stream_options={"include_wake": include_wake}) for _ in range(2)
        )
        await until(lambda: gateway.fleet.status_of("alpha").waiting_for == "place")
        told = []
        for call in (first, second):
            await call.start()
            told.append(await anext(call.chunks()))
        if include_wake:
            wakes = [json.loads(event.removeprefix(b"data: "))["wake"] for event in told]
            assert [wake["waiting_for"] for wake in wakes] == [None, "place"]
        else:
            assert told == [b": waiting\n\n", b": waiting for place\n\n"]
        gateway.alpha.may_step.set()
        for call in (first, second):
            assert b"Hel" in b"".join([chunk async for chunk in call.chunks()])


@pytest.mark.usefixtures("short_waits")
async def test_a_stream_is_kept_alive_when_its_model_has_gone(gateway: Gateway) -> None:
    gateway.alpha.may_step.clear()
    call = gateway.start_chat(stream=True, stream_options={"include_wake": True})
    await until(lambda: gateway.alpha.running == 1)
    gateway.fleet.reconfigure(replace(gateway.fleet.config, models=gateway.fleet.config.models[1:]))
    await call.start()
    chunks = call.chunks()
    assert [await anext(chunks) for _ in range(2)] == [b": waiting\n\n"] * 2
    gateway.alpha.may_step.set()
    assert b"Hel" in b"".join([chunk async for chunk in chunks])


async def test_chunks_come_one_by_one(gateway: Gateway) -> None:
    gateway.alpha.one_by_one = True
    gateway.alpha.may_step.clear()
    call = gateway.start_chat(stream=True)
    gateway.alpha.may_step.set()
    await call.start()
    chunks = call.chunks()
    assert b'"Hel"' in await anext(chunks)
    gateway.alpha.may_step.set()  # a step without text sends nothing
    await until(lambda: not gateway.alpha.may_step.is_set())
    gateway.alpha.may_step.set()
    assert b'"lo"' in await anext(chunks)
    gateway.alpha.one_by_one = False
    gateway.alpha.may_step.set()
    assert b'"!"' in await anext(chunks)
    assert await anext(chunks) == b"data: [DONE]\n\n"


@pytest.mark.usefixtures("short_waits")
async def test_a_pause_in_the_middle_is_filled_with_comments(gateway: Gateway) -> None:
    gateway.alpha.one_by_one = True
    gateway.alpha.may_step.clear()
    call = gateway.start_chat(stream=True)
    gateway.alpha.may_step.set()
    chunks = call.chunks()
    await call.start()
    while b'"Hel"' not in await anext(chunks):
        pass
    assert [await anext(chunks) for _ in range(3)] == [b": waiting\n\n"] * 3
    gateway.alpha.one_by_one = False
    gateway.alpha.may_step.set()
    rest = [chunk async for chunk in chunks if chunk != b": waiting\n\n"]
    assert b'"lo"' in rest[0] and rest[-1] == b"data: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_wake_that_fails_soon_is_a_503(gateway: Gateway, stream: bool) -> None:
    gateway.alpha.failures["wake"].append(CheckpointError("gone"))
    reply = await gateway.chat(stream=stream)
    assert reply.status == 503
    assert reply.error["code"] == "model_wake_failed"
    assert int(reply.headers["retry-after"]) >= 1
    assert gateway.in_flight() == 0


@pytest.mark.usefixtures("short_waits")
async def test_a_wake_that_fails_late_is_an_error_event(gateway: Gateway) -> None:
    gateway.alpha.may_wake.clear()
    gateway.alpha.failures["wake"].append(CheckpointError("gone"))
    call = gateway.start_chat(stream=True)
    assert (await call.start()).status == 200
    gateway.alpha.may_wake.set()
    *_, error, done, end = b"".join([chunk async for chunk in call.chunks()]).decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert '"code":"model_wake_failed"' in error
    await call.ended()


async def test_a_failure_in_mid_stream_is_an_error_event(gateway: Gateway) -> None:
    gateway.alpha.failure = DeviceError("CUDA error at /root/secret")
    reply = await gateway.chat(stream=True)
    assert reply.status == 200
    *_, error, done = reply.events
    assert done == "[DONE]"
    assert error["error"].keys() == {"message", "type", "param", "code"}
    assert error["error"]["code"] == "engine_error"
    assert "secret" not in error["error"]["message"]
    assert gateway.in_flight() == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_refuses_is_a_bad_request(gateway: Gateway, stream: bool) -> None:
    gateway.alpha.refusal = RequestError("too many stop strings", param="stop", code="too_many")
    reply = await gateway.chat(stream=stream)
    assert reply.status == 400
    assert reply.error == {
        "message": "too many stop strings",
        "type": "invalid_request_error",
        "param": "stop",
        "code": "too_many",
    }


async def leave_waiting(gateway: Gateway, stream: bool) -> Call:
    gateway.alpha.may_wake.clear()
    call = gateway.start_chat(stream=stream)
    await until(lambda: gateway.in_flight() == 1)
    return call


async def leave_before_any_byte(gateway: Gateway, stream: bool) -> Call:
    gateway.alpha.may_step.clear()
    call = gateway.start_chat(stream=stream)
    await until(lambda: gateway.alpha.running == 1)
    return call


async def leave_in_the_middle(gateway: Gateway, stream: bool) -> Call:
    gateway.alpha.one_by_one = True
    call = gateway.start_chat(stream=stream)
    if stream:
        await call.start()
        await anext(call.chunks())
    await until(lambda: gateway.alpha.running == 1 and not gateway.alpha.may_step.is_set())
    return call


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("until_phase", [leave_waiting, leave_before_any_byte, leave_in_the_middle])
async def test_a_client_that_leaves_ends_its_lease(
    gateway: Gateway,
    until_phase: Callable[[Gateway, bool], asyncio.Future[Call]],
    stream: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = await until_phase(gateway, stream)
    assert gateway.in_flight() == 1
    call.leave()
    await call.ended()
    assert gateway.in_flight() == 0 and gateway.alpha.running == 0
    gateway.alpha.may_wake.set()
    gateway.alpha.one_by_one = False
    gateway.alpha.may_step.set()
    assert (await gateway.chat()).status == 200
    assert not caplog.records


@pytest.mark.parametrize("stream", [False, True])
async def test_the_end_of_an_answer_is_not_taken_for_the_clients_leaving(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    lease = gateway.fleet.lease
    ended = []

    @asynccontextmanager
    async def slow_to_end(name: str, **how: Any) -> AsyncIterator[Lease]:
        async with lease(name, **how) as given:
            yield given
            await asyncio.sleep(0.01)
            ended.append(name)

    monkeypatch.setattr(gateway.fleet, "lease", slow_to_end)
    assert (await gateway.chat(stream=stream)).status == 200
    assert ended == ["alpha"]


async def test_a_client_that_leaves_a_batch_ends_all_of_it(gateway: Gateway) -> None:
    gateway.alpha.may_step.clear()
    body = {"model": "alpha", "prompt": ["a", "b", "c"], "stream": True}
    call = gateway.call("POST", "/v1/completions", json_body=body)
    await until(lambda: gateway.alpha.running == 3)
    call.leave()
    await call.ended()
    assert gateway.in_flight() == 0 and gateway.alpha.running == 0


async def test_a_client_that_leaves_while_its_body_is_read(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    call = gateway.call("POST", "/v1/chat/completions", body=[b'{"model":'], leaves_in_body=True)
    await call.ended()
    assert not caplog.records
    assert gateway.is_cold()


async def test_a_server_that_gives_up_a_request_ends_its_lease(gateway: Gateway) -> None:
    call = await leave_in_the_middle(gateway, True)
    call.task.cancel()
    await asyncio.wait({call.task})
    assert call.task.cancelled()
    assert gateway.in_flight() == 0 and gateway.alpha.running == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_takes_no_byte_is_cut(stream: bool) -> None:
    async with running(ServerConfig(stall_timeout=0.05)) as gateway:
        call = gateway.start_chat(stream=stream)
        call.stop_reading()
        await call.ended()
        assert gateway.in_flight() == 0 and gateway.alpha.running == 0


async def test_a_stream_that_stalls_in_the_middle_is_cut() -> None:
    async with running(ServerConfig(stall_timeout=0.05)) as gateway:
        gateway.alpha.one_by_one = True
        call = gateway.start_chat(stream=True)
        await call.start()
        await anext(call.chunks())
        call.stop_reading()
        gateway.alpha.one_by_one = False
        gateway.alpha.may_step.set()
        await call.ended()
        assert gateway.in_flight() == 0 and gateway.alpha.running == 0


async def test_a_slow_model_is_no_stall() -> None:
    async with running(ServerConfig(stall_timeout=0.02)) as gateway:
        gateway.alpha.may_step.clear()
        call = gateway.start_chat(stream=True)
        await asyncio.sleep(0.1)
        gateway.alpha.may_step.set()
        assert (await call.reply()).events[-1] == "[DONE]"


async def test_keep_alive_reaches_the_fleet(gateway: Gateway) -> None:
    def sleeps_in() -> float | None:
        return gateway.fleet.status_of("alpha").sleeps_in_seconds

    for keep_alive, seconds in [("90s", 90), (30, 30), (0.5, 0.5), (None, 300)]:
        await gateway.chat(keep_alive=keep_alive)
        left = sleeps_in()
        assert left is not None and seconds - 0.4 < left <= seconds
    for never in (-1, "-1", "never", 1e300):
        await gateway.chat(keep_alive=never)
        assert sleeps_in() in (None, float("inf"))
    await gateway.chat(keep_alive=0)
    await until(lambda: gateway.fleet.is_sleeping("alpha"))


async def test_sleep_by_force_ends_a_stream_with_an_error(gateway: Gateway) -> None:
    call = await leave_in_the_middle(gateway, True)
    reply = await gateway.post("/sleep?model=alpha&level=1&mode=abort")
    assert reply.json == {"status": "sleeping", "level": 1}
    rest = b"".join([chunk async for chunk in call.chunks()]).decode()
    assert '"code":"model_asleep"' in rest and rest.endswith("data: [DONE]\n\n")
