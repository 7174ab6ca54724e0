"""The page and its files are open to all and ask nobody else for anything; nothing else is served so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gateway
from gateway.config import ServerConfig
from tests.gateway.api.conftest import Gateway, running

FILES = sorted((Path(gateway.__file__).parent / "dashboard").iterdir())


async def test_the_page_is_open_and_its_policy_strict() -> None:
    async with running(ServerConfig(api_keys=("secret",))) as closed:
        page = await closed.get("/")
        assert page.status == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        for file in re.findall(r'(?:href|src)="(/[^"]*)"', page.body.decode()):
            assert (await closed.get(file)).status == 200, file
        assert (await closed.get("/api/status")).status == 401


async def test_every_file_is_served_as_what_it_is(gateway: Gateway) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    for file in FILES:
        reply = await gateway.get(f"/dashboard/{file.name}")
        assert reply.body == file.read_bytes()
        assert reply.headers["content-type"].startswith(types[file.suffix])
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e/app.py", "", "__init__.py"])
async def test_nothing_else_is_served(gateway: Gateway, name: str) -> None:
    assert (await gateway.get(f"/dashboard/{name}")).error["code"] == "not_found"


def test_no_file_has_an_address_of_somebody_else_or_markup_from_data() -> None:
    for file in FILES:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(?:https?:)?//[a-z0-9]", text.replace("://", ":")), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), file
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", text), file
