"""New weights by vLLM's route; what they do to a model is the fleet's, and tested there."""

from __future__ import annotations

from typing import Any

import pytest

from engine import CheckpointError
from tests.gateway.api.caller import Reply, until
from tests.gateway.api.conftest import Gateway


async def rpc(gateway: Gateway, **fields: Any) -> Reply:
    return await gateway.post("/collective_rpc", {"method": "reload_weights", **fields})


def reloads(gateway: Gateway, path: str = "/alpha") -> int:
    return gateway.fleet._memory._backend.engines[path].calls.count("reload_weights")  # type: ignore[attr-defined]


async def test_of_a_model_or_of_all(gateway: Gateway) -> None:
    for model in ("alpha", "org/beta"):
        await gateway.chat(model=model)
    for fields in ({"model": "gpt-4o-mini"}, {}, {"args": [], "kwargs": {}, "timeout": 60, "model": None}):
        reply = await rpc(gateway, **fields)
        assert (reply.status, reply.json) == (200, {"results": [None]})
    assert (reloads(gateway), reloads(gateway, "org/beta")) == (3, 2)
    assert not gateway.fleet.is_sleeping("alpha")


async def test_it_wakes_nothing(gateway: Gateway) -> None:
    assert (await rpc(gateway)).json == {"results": [None]}
    assert gateway.is_cold()
    await gateway.chat()
    await gateway.post("/sleep?model=alpha&level=2")
    assert (await rpc(gateway, model="alpha")).json == {"results": [None]}
    assert reloads(gateway) == 1
    assert gateway.fleet.status_of("alpha").state == "asleep"


async def test_files_that_do_not_fit(gateway: Gateway) -> None:
    await gateway.chat()
    gateway.alpha.failures["reload_weights"] = [CheckpointError("/srv/alpha", reason="other shapes")]
    reply = await rpc(gateway, model="alpha")
    assert (reply.status, reply.error["code"]) == (409, "files_refused")
    assert "other shapes" in reply.error["message"] and "/srv" not in reply.error["message"]
    assert (await gateway.chat()).status == 200


async def test_who_does_not_want_to_wait(gateway: Gateway) -> None:
    gateway.alpha.may_step.clear()
    streaming = gateway.start_chat()
    await until(lambda: gateway.alpha.running == 1)
    reply = await rpc(gateway, model="alpha", timeout=0.05)
    assert (reply.status, reply.error["code"]) == (503, "wait_timeout")
    gateway.alpha.may_step.set()
    assert (await streaming.reply()).status == 200
    await until(lambda: reloads(gateway) == 1)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"method": None}, "method"),
        ({"method": 1}, "method"),
        ({"method": "sleep"}, "method"),
        ({"method": "x" * 100_000}, "method"),
        ({"model": 5}, "model"),
        ({"args": {}}, "args"),
        ({"args": ["x"]}, "args"),
        ({"kwargs": []}, "kwargs"),
        ({"kwargs": {"weights_path": "/tmp"}}, "kwargs"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": 0}, "timeout"),
    ],
)
async def test_bad_fields_are_named(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    reply = await rpc(gateway, **fields)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert len(reply.body) < 32_000


async def test_bad_bodies_and_models(gateway: Gateway) -> None:
    for body in (b"", b"[]", b'"reload_weights"', b"{", b"null"):
        assert (await gateway.post("/collective_rpc", body=body)).status == 400
    missing = await gateway.post("/collective_rpc", {})
    assert (missing.status, missing.error["param"]) == (400, "method")
    assert (await rpc(gateway, model="nobody")).error["code"] == "model_not_found"
