"""What is counted of requests and of transitions is what was done."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine import CheckpointError, EngineError
from tests.gateway.api.caller import until
from tests.gateway.api.conftest import Gateway


class Samples:
    """Of one look at /metrics."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of the one series that has these labels; None: there is none."""
        found = [s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items()]
        assert len(found) <= 1, found
        return found[0] if found else None

    def of(self, name: str, *labels: str, **where: str) -> dict[tuple[str, ...], float]:
        """The values of all series that have the labels ``where``, by ``labels``."""
        return {
            tuple(s.labels[label] for label in labels): s.value
            for s in self._samples
            if s.name == name and where.items() <= s.labels.items()
        }


async def look(gateway: Gateway) -> Samples:
    reply = await gateway.get("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Samples(reply.body.decode())


async def test_a_chat_is_counted(gateway: Gateway) -> None:
    await gateway.chat("hello", max_tokens=3)
    await gateway.chat("hello", max_tokens=3, stream=True)
    seen = await look(gateway)
    assert seen("dormouse_requests_total", model="alpha", route="/v1/chat/completions", status="200") == 2
    usage = (await gateway.chat("hello", max_tokens=3)).json["usage"]
    assert seen("dormouse_prompt_tokens_total", model="alpha") == 2 * usage["prompt_tokens"]
    assert seen("dormouse_generated_tokens_total", model="alpha") == 2 * usage["completion_tokens"]
    for name in ("time_to_first_token", "queue_wait", "request"):
        assert seen(f"dormouse_{name}_seconds_count", model="alpha") == 2
    gaps = seen("dormouse_inter_token_seconds_count", model="alpha")
    assert gaps == 2 * (usage["completion_tokens"] - 1)


async def test_wakes_and_sleeps_are_counted_by_level_and_cause(gateway: Gateway) -> None:
    await gateway.chat("hello")
    await gateway.post("/sleep?level=1&model=alpha")
    await gateway.chat("hello")
    await gateway.post("/sleep?level=2&model=alpha")
    await gateway.post("/wake_up?model=alpha")
    seen = await look(gateway)
    wakes = [("cold", "request"), ("1", "request"), ("2", "manual")]
    for level, cause in wakes:
        assert seen("dormouse_wakes_total", model="alpha", level=level, cause=cause) == 1
        assert seen("dormouse_wake_seconds_count", model="alpha", level=level) == 1
    for level in ("1", "2"):
        assert seen("dormouse_sleeps_total", model="alpha", level=level, cause="manual") == 1
    assert not any(seen.of("dormouse_evictions_total", "level", "cause", model="alpha").values())


async def test_what_has_not_happened_yet_is_zero(gateway: Gateway) -> None:
    """A rate sees a first event only if there was a zero before; of new models too."""
    config = gateway.fleet.config
    newcomer = replace(config.models[1], name="newcomer")
    gateway.fleet.reconfigure(replace(config, models=(*config.models, newcomer)))
    seen = await look(gateway)
    by_hand, others = ("request", "manual", "turn"), ("room", "turn", "memory")
    slept = [("1", cause) for cause in ("idle", "manual", *others)]
    slept += [("2", cause) for cause in ("idle", "deepen", "manual", *others)]
    for model in ("alpha", "org/beta", "newcomer"):
        assert seen.of("dormouse_wakes_total", "level", "cause", model=model) == dict.fromkeys(
            [("cold", cause) for cause in ("request", "preload", "manual")]
            + [(level, cause) for level in ("1", "2") for cause in by_hand],
            0.0,
        )
        assert seen.of("dormouse_sleeps_total", "level", "cause", model=model) == dict.fromkeys(slept, 0.0)
        evicted = [(level, cause) for level in ("1", "2") for cause in others]
        assert seen.of("dormouse_evictions_total", "level", "cause", model=model) == dict.fromkeys(
            evicted, 0.0
        )
        assert seen("dormouse_wake_failures_total", model=model) == 0


async def test_a_wake_that_fails_is_counted(gateway: Gateway) -> None:
    gateway.alpha.failures["wake"] = [CheckpointError("gone", reason="gone")]
    assert (await gateway.chat("hello")).status == 503
    seen = await look(gateway)
    assert seen("dormouse_wake_failures_total", model="alpha") == 1
    assert seen("dormouse_requests_total", model="alpha", status="503") == 1


async def test_states_are_told_in_our_words_and_in_vllms(gateway: Gateway) -> None:
    await gateway.chat("hello")
    await gateway.post("/sleep?level=1&model=alpha")
    seen = await look(gateway)
    assert seen("dormouse_model_state", model="alpha", state="asleep") == 1
    assert seen("dormouse_model_state", model="alpha", state="awake") == 0
    assert seen("vllm:engine_sleep_state", model_name="alpha", sleep_state="weights_offloaded") == 1
    assert seen("vllm:engine_sleep_state", model_name="org/beta", sleep_state="discard_all") == 1


async def test_what_is_no_route_is_one_series(gateway: Gateway) -> None:
    for path in ("/a", "/b", "/v1/models/nope"):
        await gateway.get(path)
    seen = await look(gateway)
    assert seen("dormouse_requests_total", route="other") == 2
    assert seen("dormouse_requests_total", route="/v1/models/{model}") == 1


async def test_looking_wakes_nothing(gateway: Gateway) -> None:
    await look(gateway)
    assert gateway.is_cold()


def lines(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Of requests, in the log."""
    return [record for record in caplog.records if record.name == "dormouse.requests"]


async def test_a_request_is_one_line(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dormouse.requests")
    reply = await gateway.chat("hello", max_tokens=4)
    (line,) = lines(caplog)
    assert line.getMessage() == "POST /v1/chat/completions"
    assert (line.fields["model"], line.fields["status"], line.fields["tokens"]) == ("alpha", 200, 4)
    assert line.fields["id"] == reply.headers["x-request-id"]
    assert line.fields.keys() >= {"prompt_tokens", "queue_seconds", "wake_seconds", "first_token_seconds"}


async def test_machines_that_look_are_not_told_of(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dormouse.requests")
    for path in ("/health", "/ready", "/metrics", "/api/status"):
        await gateway.get(path)
    assert not lines(caplog)


async def test_the_dashboards_files_are_not_told_of(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dormouse.requests")
    for path in ("/", "/dashboard/main.js", "/dashboard/style.css"):
        assert (await gateway.get(path)).status == 200
    assert not lines(caplog)


@pytest.mark.parametrize(
    ("asked", "told"),
    [("gpt-5", "gpt-5"), ("\x1b[2J\nINFO räuber", "\\x1b[2J\\nINFO räuber"), ("m" * 9999, "m" * 99 + "…")],
)
async def test_a_model_that_there_is_not_is_named(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, asked: str, told: str
) -> None:
    caplog.set_level(logging.INFO, "dormouse.requests")
    assert (await gateway.chat(model=asked)).status == 404
    embed = {"model": asked, "input": "x"}
    assert (await gateway.post("/v1/embeddings", embed)).status == 404
    assert (await gateway.post(f"/sleep?model={quote(asked)}")).status == 404
    assert [(line.fields["status"], line.fields["asked_for"]) for line in lines(caplog)] == [(404, told)] * 3
    assert not any("model" in line.fields for line in lines(caplog))


async def test_what_is_done_by_hand_names_its_model(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dormouse.requests")
    for path in ("/wake_up", "/api/pin", "/api/unpin", "/reset_prefix_cache", "/sleep"):
        assert (await gateway.post(f"{path}?model=alpha")).status == 200
    await gateway.post("/sleep")
    assert [line.fields.get("model") for line in lines(caplog)] == ["alpha"] * 5 + [None]


async def test_a_path_that_there_is_not_is_named(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dormouse.requests")
    for path in ("/v1/chat/completion?key=secret", "/%1b[2J%0AINFO", f"/{'a' * 9999}"):
        assert (await gateway.get(path)).status == 404
    told = [line.fields["path"] for line in lines(caplog)]
    assert told == ["/v1/chat/completion", "/\\x1b[2J\\nINFO", f"/{'a' * 98}…"]
    await gateway.chat()
    assert "path" not in lines(caplog)[-1].fields


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_told_of(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    caplog.set_level(logging.INFO, "dormouse.requests")
    gateway.alpha.may_step.clear()
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "alpha", "messages": messages, "stream": stream}
    call = gateway.call("POST", "/v1/chat/completions", json_body=body)
    await until(lambda: gateway.alpha.running == 1)
    call.leave()
    await call.ended()
    (line,) = lines(caplog)
    assert line.fields["status"] == "left"
    assert (await look(gateway))("dormouse_requests_total", model="alpha", status="left") == 1


async def test_a_failure_in_mid_stream_is_told_of(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dormouse.requests")
    gateway.alpha.failure = EngineError("broken")
    await gateway.chat("hello", stream=True)
    (line,) = lines(caplog)
    assert (line.fields["status"], line.fields["tokens"]) == ("failed", 3)
