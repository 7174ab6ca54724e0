"""Whatever is sent to the /v1 routes: no 5xx, errors of one shape, and nothing of them reaches an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.bodies import CHAT, COMPLETIONS, EMBEDDINGS, Sent, requests
from tests.gateway.api.caller import Reply, until
from tests.gateway.api.conftest import Gateway, build

MODELS = {CHAT: "alpha", COMPLETIONS: "gpt-4o-mini", EMBEDDINGS: "org/beta"}
TEMPLATE = "{% for m in messages %}{{ m | tojson }}{% endfor %}{{ loud | default('') | tojson }}"
INSIDE = ("Traceback", "site-packages", "object at 0x", ".py", str(Path.cwd()))
"""Words that would tell of the server's inside."""


@dataclass
class Desk:
    """A gateway and the loop that it runs in. ``alpha`` falls asleep after every answer."""

    gateway: Gateway = field(repr=False)
    runner: asyncio.Runner = field(repr=False)

    def send(self, sent: Sent) -> Reply:
        """The answer, when the request has left nothing behind."""
        return self.runner.run(self._send(sent))

    async def _send(self, sent: Sent) -> Reply:
        headers = {"content-type": sent.content_type}
        reply = await self.gateway.call("POST", sent.path, body=sent.chunks, headers=headers).reply()
        await until(lambda: not any(s.in_flight or s.queued for s in self.gateway.fleet.status()))
        return reply

    def reached(self) -> list[int]:
        """How often an engine was woken, and how often it was asked."""
        scripts = (self.gateway.alpha, self.gateway.beta)
        return [count for s in scripts for count in (s.wakes, len(s.requests), len(s.embedded))]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    gateway = build(idle_timeout=0.0)
    gateway.alpha.chat_template, gateway.alpha.max_model_len = TEMPLATE, 2000
    gateway.beta.kind, gateway.beta.embedding_size = "embed", 3
    with asyncio.Runner() as runner:
        runner.run(gateway.fleet.start())
        yield Desk(gateway, runner)
        runner.run(gateway.fleet.close())


def check(desk: Desk, sent: Sent) -> None:
    before = desk.reached()
    reply = desk.send(sent)
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
        assert reply.json["model"] in MODELS.values()


@settings(max_examples=500)
@given(sent=requests(MODELS))
def test_whatever_is_sent(desk: Desk, sent: Sent) -> None:
    check(desk, sent)


@pytest.mark.soak
@settings(max_examples=30_000)
@given(sent=requests(MODELS))
def test_whatever_is_sent_for_long(desk: Desk, sent: Sent) -> None:
    check(desk, sent)
