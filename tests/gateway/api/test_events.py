"""Transitions are told of as they happen, each once, to whoever listens for as long as they do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.api import events
from tests.gateway.api.caller import Call
from tests.gateway.api.conftest import Gateway


def parse(chunk: bytes) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for event in chunk.decode().split("\n\n"):
        if event and not event.startswith(":"):
            number, data = event.split("\n")
            found.append((int(number.removeprefix("id: ")), json.loads(data.removeprefix("data: "))))
    return found


async def listen(gateway: Gateway, **headers: str) -> Call:
    call = gateway.call("GET", "/api/events", headers=headers)
    start = await call.sent()
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-type"].startswith(b"text/event-stream")
    return call


async def heard(call: Call, count: int) -> list[tuple[int, dict[str, Any]]]:
    told: list[tuple[int, dict[str, Any]]] = []
    while len(told) < count:
        told += parse((await call.sent())["body"])
    return told


async def leave(call: Call) -> None:
    call.leave()
    await call.ended()


async def test_what_was_and_what_comes(gateway: Gateway) -> None:
    await gateway.chat("hello")
    call = await listen(gateway)
    told = await heard(call, 2)
    assert [(number, event["after"]) for number, event in told] == [(1, "waking"), (2, "awake")]
    await gateway.post("/sleep?level=1&model=alpha")
    more = await heard(call, 2)
    assert more[-1][1]["after"] == "asleep" and more[-1][1]["level"] == 1
    assert more[-1][1]["model"] == "alpha" and more[-1][1]["cause"] == "manual"
    await leave(call)


@pytest.mark.parametrize(("seen", "numbers"), [("1", [2]), ("999", [1, 2]), ("x", [1, 2])])
async def test_who_comes_back_hears_what_they_missed(gateway: Gateway, seen: str, numbers: list[int]) -> None:
    await gateway.chat("hello")
    call = await listen(gateway, **{"last-event-id": seen})
    assert [number for number, _ in await heard(call, len(numbers))] == numbers
    await leave(call)


async def test_silence_is_broken_by_comments(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.01)
    call = await listen(gateway)
    for _ in range(3):
        assert (await call.sent())["body"].startswith(b":")
    await leave(call)


async def test_who_leaves_is_told_no_more(gateway: Gateway) -> None:
    call = await listen(gateway)
    await call.sent()
    before = len(gateway.fleet.events._subscribers)
    await leave(call)
    assert len(gateway.fleet.events._subscribers) == before - 1


async def test_who_does_not_follow_hears_what_was(gateway: Gateway) -> None:
    await gateway.chat("hello")
    call = gateway.call("GET", "/api/events?follow=false")
    await call.sent()
    assert [event["after"] for _, event in await heard(call, 2)] == ["waking", "awake"]
    await call.ended()
