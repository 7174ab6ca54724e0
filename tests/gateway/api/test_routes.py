"""Models, sleep routes, health, status; and that looking wakes nothing."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from engine import CheckpointError
from tests.gateway.api.caller import until
from tests.gateway.api.conftest import Gateway, build, running, started


async def test_models(gateway: Gateway) -> None:
    await gateway.fleet.opened("alpha")
    listed = (await gateway.get("/v1/models")).json
    assert listed["object"] == "list"
    created = listed["data"][0]["created"]
    assert isinstance(created, int)
    assert listed["data"] == [
        {
            "id": "alpha",
            "object": "model",
            "created": created,
            "owned_by": "dormouse",
            "root": "alpha",
            "status": {"value": "cold", "level": None},
            "aliases": ["gpt-4o-mini"],
            "max_model_len": 200,
        },
        {
            "id": "org/beta",
            "object": "model",
            "created": created,
            "owned_by": "dormouse",
            "root": "org/beta",
            "status": {"value": "cold", "level": None},
            "aliases": [],
            "max_model_len": 200,
        },
    ]
    for path, name in [("alpha", "alpha"), ("gpt-4o-mini", "alpha"), ("org/beta", "org/beta")]:
        assert (await gateway.get(f"/v1/models/{path}")).json["id"] == name
    assert (await gateway.get("/v1/models/org%2Fbeta")).json["id"] == "org/beta"
    reply = await gateway.get("/v1/models/nobody")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/org%2Fbeta", "/api/status"])
async def test_a_models_length_is_known_before_it_is_opened(path: str) -> None:
    gateway = build()
    gateway.alpha.may_open.clear()
    gateway.beta.may_open.clear()
    gateway.beta.here = False

    async def lengths() -> list[Any]:
        found = (await gateway.get(path)).json
        models = found.get("data") or found.get("models") or [found]
        return [model["max_model_len"] for model in models]

    try:
        async with started(gateway):
            known = [200] if "beta" not in path else []
            assert await lengths() == [*known, None]
            gateway.beta.here = True
            assert await lengths() == [*known, 200]
            gateway.beta.here = False
            assert await lengths() == [*known, 200], "it is remembered"
    finally:
        gateway.alpha.may_open.set()


async def test_a_configured_length_needs_no_files() -> None:
    async with running(max_model_len=100) as gateway:
        gateway.alpha.here = False
        gateway.alpha.may_open.clear()
        assert (await gateway.get("/v1/models/alpha")).json["max_model_len"] == 100
        gateway.alpha.may_open.set()
        assert (await gateway.fleet.opened("alpha")).info.max_model_len == 100


async def test_a_model_without_files_has_no_length() -> None:
    async with running(path="/nowhere") as gateway:
        assert (await gateway.get("/v1/models/alpha")).json["max_model_len"] is None


async def test_a_model_named_by_its_path() -> None:
    async with running(name="/models/tiny") as gateway:
        assert (await gateway.get("/v1/models/%2Fmodels%2Ftiny")).json["id"] == "/models/tiny"
        assert (await gateway.get("/v1/models//models/tiny")).json["id"] == "/models/tiny"


async def test_sleep_and_wake(gateway: Gateway) -> None:
    async def sleeping(query: str = "?model=alpha") -> bool:
        answer = (await gateway.get(f"/is_sleeping{query}")).json
        assert answer.keys() == {"is_sleeping"}
        return bool(answer["is_sleeping"])

    async def state() -> dict[str, Any]:
        status: dict[str, Any] = (await gateway.get("/v1/models/alpha")).json["status"]
        return status

    assert await sleeping()
    await gateway.chat()
    assert not await sleeping() and not await sleeping("")
    assert await state() == {"value": "awake", "level": None}
    reply = await gateway.post("/sleep?level=1&model=gpt-4o-mini")
    assert reply.json == {"status": "sleeping", "level": 1}
    assert await sleeping() and await sleeping("")
    assert await state() == {"value": "asleep", "level": 1}
    assert (await gateway.post("/sleep?level=2&model=alpha")).json["level"] == 2
    reply = await gateway.post("/wake_up?model=alpha&tags=weights")
    assert reply.json == {"status": "sleeping", "tags": ["weights"]}
    assert await sleeping()
    reply = await gateway.post("/wake_up?model=alpha&tags=kv_cache")
    assert reply.json == {"status": "awake", "tags": ["kv_cache"]}
    assert not await sleeping()
    await gateway.post("/sleep?model=alpha")
    assert (await gateway.post("/wake_up?model=alpha")).json == {"status": "awake", "tags": None}
    assert (await gateway.chat()).status == 200


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("level=0", "query.level"),
        ("level=3", "query.level"),
        ("level=-1", "query.level"),
        ("level=deep", "query.level"),
        ("mode=keep", "query.mode"),
        ("level=1&mode=", "query.mode"),
    ],
)
async def test_a_bad_level_or_mode_does_nothing(gateway: Gateway, query: str, param: str) -> None:
    await gateway.chat()
    reply = await gateway.post(f"/sleep?model=alpha&{query}")
    assert (reply.status, reply.error["param"]) == (400, param)
    assert not gateway.fleet.is_sleeping("alpha")


async def test_bad_tags_and_models(gateway: Gateway) -> None:
    reply = await gateway.post("/wake_up?model=alpha&tags=brains")
    assert (reply.status, reply.error["param"]) == (400, "query.tags")
    for method, path in [("POST", "/sleep"), ("POST", "/wake_up"), ("GET", "/is_sleeping")]:
        reply = await gateway.call(method, f"{path}?model=nobody").reply()
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert gateway.is_cold()


async def test_pin_and_unpin(gateway: Gateway) -> None:
    for path, pinned in [("/api/pin", True), ("/api/pin", True), ("/api/unpin", False)]:
        reply = await gateway.post(f"{path}?model=gpt-4o-mini")
        assert reply.json == {"model": "alpha", "pinned": pinned}
        assert gateway.fleet.status_of("alpha").pinned is pinned
    assert (await gateway.post("/api/pin?model=org%2Fbeta")).json == {"model": "org/beta", "pinned": True}
    assert gateway.is_cold()
    assert (await gateway.post("/api/pin?model=nobody")).error["code"] == "model_not_found"
    reply = await gateway.post("/api/pin")
    assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")


async def test_health_names_a_faulty_model(gateway: Gateway) -> None:
    assert (await gateway.get("/health")).json == {"status": "ok"}
    await gateway.fleet.opened("alpha")
    gateway.alpha.fault = "a step has run for 100 s"
    reply = await gateway.get("/health")
    assert reply.status == 503
    assert "alpha" in reply.error["message"] and "100 s" in reply.error["message"]


async def test_ready_once_preloads_are_done() -> None:
    async with running(preload=True) as gateway:
        gateway.alpha.may_wake.clear()
        reply = await gateway.get("/ready")
        assert (reply.status, reply.error["code"]) == (503, "not_ready")
        gateway.alpha.may_wake.set()
        await until(lambda: gateway.fleet.ready)
        assert (await gateway.get("/ready")).status == 200
        assert not gateway.fleet.is_sleeping("alpha")


async def test_ready_once_the_local_models_have_been_opened() -> None:
    gateway = build()
    gateway.alpha.may_open.clear()
    gateway.alpha.failures["open"].append(CheckpointError("gone"))
    async with started(gateway):
        assert (await gateway.get("/ready")).error["code"] == "not_ready"
        gateway.alpha.may_open.set()
        await until(lambda: gateway.fleet.ready)
        assert gateway.fleet.status_of("alpha").state == "failed"


async def test_version(gateway: Gateway) -> None:
    assert (await gateway.get("/version")).json == {"version": version("dormouse")}


async def test_status(gateway: Gateway) -> None:
    await gateway.chat(keep_alive=-1)
    status = (await gateway.get("/api/status")).json
    assert status.keys() == {"models", "generated_tokens", "device", "host"}
    assert status["generated_tokens"] == {"alpha": 4}
    alpha, beta = status["models"]
    assert alpha["name"] == "alpha" and alpha["state"] == "awake" and alpha["in_flight"] == 0
    assert alpha["sleeps_in_seconds"] is None
    assert alpha["last_wake"]["cause"] == "request"
    assert {"level", "queued", "idle_seconds", "device_bytes", "host_bytes", "weights_bytes", "kv_bytes"} <= (
        alpha.keys()
    )
    assert beta["state"] == "cold" and beta["last_wake"] is None
    assert (alpha["kind"], beta["kind"]) == ("generate", None), "beta has not been opened"


async def test_looking_wakes_nothing(gateway: Gateway) -> None:
    await until(lambda: gateway.fleet.ready)
    for path in ("/v1/models", "/v1/models/alpha", "/api/status", "/health", "/ready", "/is_sleeping"):
        assert (await gateway.get(path)).status == 200
    assert gateway.is_cold()
