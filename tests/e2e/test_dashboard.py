"""The dashboard in a real browser, over the real server: what people press and see."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect, sync_playwright

import engine
from tests.e2e.dashboard import (
    CONTRASTS,
    HIDE,
    NOTE_WAITS,
    button,
    expect_answered,
    expect_state,
    fall_asleep,
    opened,
    row,
    say,
    tabbed,
)
from tests.e2e.server import Server, running

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEMO = Path(engine.__file__).parent / "demo"
ODD = 'team/<b>"räuber" & co'
PATIENCE = 20_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def config(directory: Path, checkpoints: dict[str, Path]) -> str:
    large = checkpoints["large-a"]
    return f"""
[sleep]
idle_timeout = "10m"
[models.light]
path = "{DEMO / "demo-a"}"
level = 1
[models.{json.dumps(ODD)}]
path = "{DEMO / "demo-b"}"
[models.endless]
path = "{large}"
[models.thinker]
path = "{large}"
chat_template = "{directory / "template.jinja"}"
reasoning_parser = "deepseek_r1"
[models.broken]
path = "{directory / "empty"}"
[models.embedder]
path = "{embedder(directory / "embedder", checkpoints["tiny-a"])}"
"""


def embedder(directory: Path, path: Path) -> Path:
    """A decoder without a head."""
    shutil.copytree(path, directory)
    config = json.loads((path / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen3Model"]}))
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("dashboard")
    (directory / "empty").mkdir()
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n"
    (directory / "template.jinja").write_text(template)
    with running(directory, config(directory, checkpoints), OMP_NUM_THREADS="1") as server:
        yield server


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        expect.set_options(timeout=PATIENCE)
        tab = browser.new_page()
        tab.set_default_timeout(PATIENCE)
        yield tab
        browser.close()


@pytest.fixture
def page(tab: Page, server: Server) -> Iterator[Page]:
    with opened(tab, server) as page:
        yield page


@pytest.mark.parametrize("model", ["light", ODD])
def test_wake_sleep_and_pin(page: Page, server: Server, model: str) -> None:
    fall_asleep(server, model, 2)
    expect_state(page, model, "asleep 2")
    button(page, model, "Wake").click()
    expect_state(page, model, "awake")
    expect(row(page, model)).to_contain_text(re.compile(r"sleeps in (10:00|9:\d\d)"))
    expect(row(page, model)).to_contain_text("from level 2")
    button(page, model, "Pin").click()
    expect(row(page, model)).to_contain_text("pinned, stays awake")
    expect(button(page, model, "Pin")).to_have_attribute("aria-pressed", "true")
    assert server.status(model)["pinned"]
    button(page, model, "Pin").click()
    expect(row(page, model)).to_contain_text("sleeps in")
    button(page, model, "Sleep").click()
    expect_state(page, model, "asleep 1")
    expect(page.locator("#memory")).to_contain_text("MiB parked")
    button(page, model, "Deep sleep").click()
    expect_state(page, model, "asleep 2")
    assert server.status(model)["level"] == 2


def test_pictures_show_what_happened(page: Page, server: Server) -> None:
    fall_asleep(server, "light", 1)
    server.http.post("/wake_up?model=light")
    expect_state(page, "light", "awake")
    lane = page.locator("#timeline .lane").filter(has_text="light")
    for kind in ("awake", "asleep-1"):
        expect(lane.locator(f"rect[data-kind='{kind}']").last).to_be_attached()
    expect(lane.locator("g:has(line) title").last).to_contain_text("waking → awake: by hand")
    expect(page.locator("#wakes .level").filter(has_text="from level 1")).to_contain_text("median")
    expect(page.locator("#memory .filling i[data-kind='awake']").first).to_be_visible()
    page.get_by_text("Latest transitions in words").click()
    expect(page.locator("#latest li").first).to_contain_text("light waking → awake: by hand")


def test_chat_wakes_a_sleeper_and_remembers(page: Page, server: Server) -> None:
    fall_asleep(server, "light", 2)
    expect_state(page, "light", "asleep 2")
    page.evaluate(NOTE_WAITS)
    answer = say(page, "light", "What is 7 plus 5?")
    expect_answered(page)
    expect(answer.locator(".said")).to_contain_text("12")
    waits = page.evaluate("window.waits")
    assert re.match(r"waking… · \d\.\d\ss", waits[0]), waits
    expect_state(page, "light", "awake")
    say(page, "light", "How does sleep work?")
    expect_answered(page)
    expect(page.locator(".message")).to_have_count(4)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".message")).to_have_count(0)


def test_chat_tells_waiting_for_room_from_waking(page: Page, server: Server) -> None:
    with one_large_model_fits(server), busy(server, "thinker"):
        answer = say(page, "endless", "Tell me all.")
        expect(answer.locator(".wait")).to_contain_text("waiting for room in memory…")
        expect(row(page, "endless")).to_contain_text("1 waiting, no room yet")
        assert server.status("endless")["waiting_for"] == "room"
        expect(answer.locator(".said")).not_to_be_empty()
        page.get_by_role("button", name="Stop").click()
        expect_answered(page)


@contextmanager
def one_large_model_fits(server: Server) -> Iterator[None]:
    """All sleep, and a busy one has short turns."""
    before = server._config.read_text()
    fall_asleep(server, "endless", 2)
    server.http.post("/sleep", params={"level": 2}).raise_for_status()
    limit = server.status("endless")["to_wake_bytes"] * 3 // 2
    server._config.write_text(f'{before}[memory]\ndevice_limit = "{limit}B"\n[queue]\nturn = "2s"\n')
    server.signal(signal.SIGHUP)
    try:
        server.wait_until(lambda: _device_limit(server) == limit, "no limit")
        yield
    finally:
        server._config.write_text(before)
        server.signal(signal.SIGHUP)
        server.wait_until(lambda: _device_limit(server) > limit, "still limited")


def _device_limit(server: Server) -> int:
    limit: int = server.http.get("/api/status").json()["device"]["limit"]
    return limit


@contextmanager
def busy(server: Server, model: str) -> Iterator[None]:
    body = {"model": model, "messages": [{"role": "user", "content": "Think."}], "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        pieces = answer.iter_raw()
        assert next(pieces)
        yield


def test_a_long_answer_is_counted_and_can_be_stopped(page: Page, server: Server) -> None:
    answer = say(page, "endless", "Tell me all.")
    expect(answer.locator(".said")).not_to_be_empty()
    expect(row(page, "endless")).to_contain_text("tokens/s")
    expect(row(page, "endless")).to_contain_text("1 running")
    page.get_by_role("button", name="Stop").click()
    expect_answered(page)
    expect(answer).to_contain_text("stopped")
    expect(row(page, "endless")).to_contain_text("sleeps in")
    assert server.status("endless")["in_flight"] == 0


def test_reasoning_is_shown_apart(page: Page) -> None:
    answer = say(page, "thinker", "Think.")
    expect(answer.get_by_text("Reasoning")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect_answered(page)
    answer.locator("summary").click()
    expect(answer.locator(".reasoning")).to_be_visible()
    expect(answer.locator(".said")).to_be_hidden()


def test_errors_are_told_in_the_words_of_the_server(tab: Page, server: Server) -> None:
    with opened(tab, server, failures=True) as page:
        answer = say(page, "broken", "Hello?")
        expect_answered(page)
        expect(answer.locator(".error")).to_contain_text("config.json")
        expect(row(page, "broken").locator(".error")).to_contain_text("config.json")
        button(page, "broken", "Wake").click()
        expect(row(page, "broken").get_by_role("alert")).to_contain_text("broken could not be woken")


def test_a_key_is_asked_for(tab: Page, server: Server) -> None:
    before = server._config.read_text()
    keys = '[server]\napi_keys = ["user"]\nadmin_keys = ["admin"]'
    try:
        server._config.write_text(before.replace("[server]", keys, 1))
        server.signal(signal.SIGHUP)
        server.wait_until(lambda: server.http.get("/api/status").status_code == 401, "no keys")
        with opened(tab, server, failures=True) as page:
            _use_keys(page)
    finally:
        server._config.write_text(before)
        server.signal(signal.SIGHUP)
        server.wait_until(lambda: server.http.get("/api/status").status_code == 200, "still keys")


def _use_keys(page: Page) -> None:
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The server asks for a key")
    page.keyboard.press("Escape")
    expect(page.locator("#connection")).to_have_text("a key is needed")
    page.get_by_role("button", name="Key…").click()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("does not take this key")
    page.keyboard.type("user")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#connection")).to_have_text("live")
    button(page, "light", "Pin").click()
    expect(dialog).to_contain_text("does not take this key for that")
    page.keyboard.type("admin")
    page.keyboard.press("Enter")
    expect(button(page, "light", "Pin")).to_have_attribute("aria-pressed", "true")
    button(page, "light", "Pin").click()
    expect(button(page, "light", "Pin")).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(page.locator("#connection")).to_have_text("live")
    page.get_by_role("button", name="Key…").click()
    page.get_by_role("button", name="Forget key").click()
    expect(dialog).to_contain_text("The server asks for a key")


def test_the_server_restarts_under_the_page(tab: Page, server: Server) -> None:
    with opened(tab, server, failures=True) as page:
        answer = say(page, "light", "What is 7 plus 5?")
        expect_answered(page)
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        expect(page.locator("#connection")).to_have_text("connection lost, trying again…")
        lost = say(page, "light", "How does sleep work?")
        expect(lost.locator(".error")).to_have_text("no answer from the server")
        server.start()
        expect(page.locator("#connection")).to_have_text("live")
        expect_state(page, "light", "cold")
        expect(answer.locator(".said")).to_contain_text("12")
        lost.get_by_role("button", name="Try again").click()
        expect(page.locator(".message.assistant").last.locator(".said")).not_to_be_empty()
        expect_answered(page)
        expect(page.locator(".message")).to_have_count(4)
        lane = page.locator("#timeline .lane").filter(has_text="light")
        expect(lane.locator("g:has(line) title").last).to_contain_text("a request came")


def test_a_small_screen_scrolls_one_way_only(page: Page) -> None:
    expect(button(page, "light", "Pin")).to_be_visible()
    for width in (360, 390, 768):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        outside = page.evaluate(
            """(width) => [...document.querySelectorAll("body *:not(svg *)")]
                .filter((one) => one.getBoundingClientRect().right > width).map((one) => one.outerHTML)""",
            width,
        )
        assert outside == []


def test_a_model_that_embeds_is_not_offered_for_a_chat(page: Page, server: Server) -> None:
    expect(row(page, "embedder")).to_contain_text("makes embeddings")
    assert server.status("embedder")["state"] == "cold"
    offered = page.locator("#chat-model option").evaluate_all("(all) => all.map((one) => one.value)")
    assert offered == ["light", ODD, "endless", "thinker", "broken"]


def test_by_keyboard_alone(page: Page, server: Server) -> None:
    fall_asleep(server, "light", 1)
    expect_state(page, "light", "asleep 1")
    stops = [tabbed(page) for _ in range(3)]
    assert stops == ["Skip to the chat", "Theme: auto", "Wake light"]
    page.keyboard.press("Enter")
    expect_state(page, "light", "awake")
    expect(button(page, "light", "Sleep")).to_be_focused()
    assert page.locator("#announcer").text_content() == "light is awake"
    page.keyboard.press("Enter")
    expect_state(page, "light", "asleep 1")
    names = ["light", ODD, "endless", "thinker", "broken", "embedder"]
    wanted = [f"{verb} {name}" for name in names for verb in ("Wake", "Deep sleep", "Pin")][1:]
    page.locator(".skip").focus()
    wanted = ["Theme: auto", "Wake light", *wanted, "Model to chat with", "New chat", "Messages", "Message"]
    wanted += ["Send", "Latest transitions in words"]
    for name in names[1:4]:
        server.http.post("/sleep", params={"model": name})
        expect(button(page, name, "Sleep")).to_have_count(0)
    assert [tabbed(page) for _ in wanted] == wanted


def test_light_and_dark(page: Page) -> None:
    def background() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    page.emulate_media(color_scheme="dark")
    dark = background()
    page.emulate_media(color_scheme="light")
    light = background()
    assert light != dark
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert background() == dark
    page.reload()
    assert background() == dark


def test_all_texts_stand_out(tab: Page, server: Server) -> None:
    """By the 4.5 to 1 that WCAG asks for."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    with opened(tab, server, failures=True) as page:
        say(page, "broken", "Hello?")
        expect_answered(page)
        expect(row(page, "broken").locator(".error")).to_contain_text("config.json")
        page.get_by_text("Latest transitions in words").click()
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            found = page.evaluate(CONTRASTS)
            assert len(found) > 50
            assert {text: ratio for text, ratio in found if ratio < 4.5} == {}, scheme


def test_a_hidden_page_asks_for_nothing(page: Page) -> None:
    expect(page.locator("#latest li").first).to_be_attached()
    asked: list[str] = []
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/api/events")):
        page.evaluate(HIDE, True)
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1200)
    assert asked == []
    with page.expect_request("**/api/status"), page.expect_request("**/api/events"):
        page.evaluate(HIDE, False)
