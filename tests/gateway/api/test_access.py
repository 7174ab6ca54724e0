"""Keys, Host, Origin, CORS."""

from __future__ import annotations

import itertools

import pytest

from gateway.config import ServerConfig
from tests.gateway.api.conftest import Gateway, running

OPEN = [("GET", "/health"), ("GET", "/ready"), ("GET", "/version")]
USER = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/alpha"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/tokenizer_info"),
    ("GET", "/api/status"),
    ("GET", "/is_sleeping"),
]
ADMIN = [
    ("POST", "/sleep"),
    ("POST", "/reset_prefix_cache"),
    ("POST", "/wake_up"),
    ("POST", "/collective_rpc"),
]

REFUSED = 401


async def refused(gateway: Gateway, route: tuple[str, str], key: str | None) -> bool:
    """Whether the key is refused, in either header."""
    answers = set()
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key or ""}):
        reply = await gateway.call(*route, headers=headers if key else {}).reply()
        if reply.status == REFUSED:
            assert reply.error["code"] == "invalid_api_key"
        answers.add(reply.status == REFUSED)
    assert len(answers) == 1
    return answers.pop()


@pytest.mark.parametrize(
    ("api_keys", "admin_keys", "user_keys_work", "admin_keys_work"),
    [
        ((), (), {None, "x"}, {None, "x"}),
        (("u1", "u2"), (), {"u1", "u2"}, {"u1", "u2"}),
        ((), ("a",), {None, "x", "a"}, {"a"}),
        (("u1", "u2"), ("a",), {"u1", "u2", "a"}, {"a"}),
    ],
)
async def test_keys(
    api_keys: tuple[str, ...],
    admin_keys: tuple[str, ...],
    user_keys_work: set[str | None],
    admin_keys_work: set[str | None],
) -> None:
    async with running(ServerConfig(api_keys=api_keys, admin_keys=admin_keys)) as gateway:
        for key in (None, "x", "u1", "u2", "a"):
            if key and key not in ("x", *api_keys, *admin_keys):
                continue
            for route in OPEN:
                assert not await refused(gateway, route, key)
            for route in USER:
                assert await refused(gateway, route, key) == (key not in user_keys_work), (route, key)
            for route in ADMIN:
                assert await refused(gateway, route, key) == (key not in admin_keys_work), (route, key)


async def test_keys_of_any_letters_and_nothing_but_the_whole_key() -> None:
    async with running(ServerConfig(api_keys=("schlüssel",))) as gateway:
        assert not await refused(gateway, ("GET", "/v1/models"), "schlüssel")
        for wrong in ("schlüsse", "schlüssell", "Schlüssel"):
            assert await refused(gateway, ("GET", "/v1/models"), wrong)
        basic = {"authorization": "Basic schlüssel"}
        assert (await gateway.get("/v1/models", headers=basic)).status == REFUSED


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("127.1.2.3", True),
        ("[::1]:8000", True),
        ("app.localhost", True),
        ("evil.example:8000", False),
        ("192.168.1.5", False),
        ("localhost.evil.example", False),
        ("[", False),
        ("", False),
    ],
)
async def test_on_loopback_without_keys_the_host_is_a_loopback_name(host: str, allowed: bool) -> None:
    for server in (
        ServerConfig(),
        ServerConfig(host="::1"),
        ServerConfig(host="localhost", admin_keys=("a",)),
    ):
        async with running(server) as gateway:
            for path in ("/health", "/v1/models", "/nowhere"):
                reply = await gateway.get(path, headers={"host": host})
                assert (reply.status == 403) != allowed
                if not allowed:
                    assert reply.error["code"] == "forbidden"
                    assert "x-request-id" in reply.headers


async def test_any_host_elsewhere_or_with_keys() -> None:
    for server in (ServerConfig(api_keys=("k",)), ServerConfig(host="0.0.0.0")):
        async with running(server) as gateway:
            assert (await gateway.get("/health", headers={"host": "gpu-box:8000"})).status == 200


ORIGINS = ("https://chat.example", "http://other.example:3000")


@pytest.mark.parametrize(
    ("origin", "allowed", "cors"),
    [
        ("http://127.0.0.1:8000", True, False),
        ("https://127.0.0.1:8000", True, False),
        ("https://chat.example", True, True),
        ("http://other.example:3000", True, True),
        ("http://chat.example", False, False),
        ("https://evil.example", False, False),
        ("http://127.0.0.1:9000", False, False),
        ("null", False, False),
        ("http://[", False, False),
        ("127.0.0.1:8000", False, False),
    ],
)
async def test_origins(origin: str, allowed: bool, cors: bool) -> None:
    async with running(ServerConfig(cors_origins=ORIGINS)) as gateway:
        for method, path in itertools.chain(OPEN, USER, ADMIN, [("GET", "/nowhere")]):
            reply = await gateway.call(method, path, headers={"origin": origin}).reply()
            assert (reply.status == 403) != allowed
            assert reply.headers.get("access-control-allow-origin") == (origin if cors else None)
            if not allowed:
                assert reply.error["type"] == "permission_error"


async def test_preflight_needs_no_key_and_errors_carry_cors() -> None:
    async with running(ServerConfig(cors_origins=ORIGINS, api_keys=("k",))) as gateway:
        headers = {
            "origin": ORIGINS[0],
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type",
        }
        reply = await gateway.call("OPTIONS", "/v1/chat/completions", headers=headers).reply()
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == ORIGINS[0]
        assert reply.headers["access-control-allow-headers"] == "authorization, content-type"
        assert "POST" in reply.headers["access-control-allow-methods"]
        reply = await gateway.get("/v1/models", headers={"origin": ORIGINS[0]})
        assert reply.status == 401
        assert reply.headers["access-control-allow-origin"] == ORIGINS[0]
        assert "x-request-id" in reply.headers["access-control-expose-headers"]
        foreign = {**headers, "origin": "https://evil.example"}
        assert (await gateway.call("OPTIONS", "/v1/models", headers=foreign).reply()).status == 403


async def test_a_star_allows_every_origin() -> None:
    async with running(ServerConfig(cors_origins=("*",))) as gateway:
        reply = await gateway.get("/health", headers={"origin": "https://any.example"})
        assert reply.headers["access-control-allow-origin"] == "https://any.example"
