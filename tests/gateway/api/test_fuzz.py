"""Whatever is sent to the /v1 routes: no 5xx, errors of one shape, and nothing of them reaches an engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.bodies.broken import Sent, requests
from tests.bodies.good import RPC
from tests.gateway.api.caller import Reply
from tests.gateway.api.conftest import DESK_MODELS, Desk

INSIDE = ("Traceback", "site-packages", "object at 0x", ".py", str(Path.cwd()))
"""Words that would tell of the server's inside."""


def check(desk: Desk, sent: Sent) -> None:
    before = desk.reached()
    reply = desk.send(sent)
    if reply.status == 503:
        assert (sent.path, reply.error["code"]) == (RPC, "wait_timeout"), "which the client may set"
        return
    assert reply.status in (200, 400, 404)
    if reply.status == 200:
        check_answer(reply)
        return
    assert desk.reached() == before, "an error reached an engine"
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["param"]
    assert len(reply.body) < 32_000
    assert not [word for word in INSIDE if word in reply.error["message"] and word.encode() not in sent.body]


def check_answer(reply: Reply) -> None:
    if reply.headers["content-type"].startswith("text/event-stream"):
        *chunks, done = reply.events
        assert done == "[DONE]" and not [chunk for chunk in chunks if "error" in chunk]
    else:
        assert isinstance(reply.json, dict)


@settings(max_examples=500)
@given(sent=requests(DESK_MODELS))
def test_whatever_is_sent(desk: Desk, sent: Sent) -> None:
    check(desk, sent)


@pytest.mark.soak
@settings(max_examples=30_000)
@given(sent=requests(DESK_MODELS))
def test_whatever_is_sent_for_long(desk: Desk, sent: Sent) -> None:
    check(desk, sent)
