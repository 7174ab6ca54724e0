"""The dashboard in a browser: what of it tests press and read.

No page may ask anybody else for anything, nor complain in the console.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.e2e.server import Server

NOTE_WAITS = """() => {
    window.waits = [];
    const note = () => document.querySelectorAll(".wait").forEach((one) => window.waits.push(one.innerText));
    new MutationObserver(note).observe(document.getElementById("chat-log"), {childList: true, subtree: true});
}"""
"""What people see while they wait, noted in ``window.waits``."""

CONTRASTS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const linear = (part) => part <= 10 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = (one) => {
        const colour = rgba(getComputedStyle(one).backgroundColor);
        return colour[3] === 255 ? colour : behind(one.parentElement);
    };
    const ratio = (one, pseudo) => {
        const [a, b] = [rgba(getComputedStyle(one, pseudo).color), behind(one)].map(luminance);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    const told = [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility()
        && [...one.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim()));
    const placeholders = [...document.querySelectorAll("[placeholder]")];
    return [...told.map((one) => [one.textContent, ratio(one)]),
        ...placeholders.map((one) => [one.placeholder, ratio(one, "::placeholder")])];
}"""
"""Each text and how much it stands out, by WCAG's measure."""

HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", {configurable: true, value: hidden});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""As the browser does it when another tab is looked at."""


@contextmanager
def opened(tab: Page, server: Server, *, failures: bool = False) -> Iterator[Page]:
    """The page, new; ``failures``: those of requests, which the console tells of, are part of the test."""
    asked: list[str] = []
    complaints: list[str] = []
    hearing: dict[Any, Callable[[Any], None]] = {
        "request": lambda request: asked.append(request.url),
        "pageerror": lambda error: complaints.append(str(error)),
        "console": lambda message: complaints.append(message.text),
    }
    tab.set_viewport_size({"width": 1280, "height": 800})
    for event, hear in hearing.items():
        tab.on(event, hear)
    tab.goto(server.url)
    try:
        yield tab
    finally:
        tab.evaluate("sessionStorage.clear(), localStorage.clear()")
        tab.goto("about:blank")
        for event, hear in hearing.items():
            tab.remove_listener(event, hear)
    assert [url for url in asked if not url.startswith(f"{server.url}/")] == []
    assert [c for c in complaints if not (failures and c.startswith("Failed to load resource"))] == []


def row(page: Page, model: str) -> Locator:
    return page.locator("#models > li").filter(has=page.get_by_role("heading", name=model, exact=True))


def button(page: Page, model: str, name: str) -> Locator:
    return row(page, model).get_by_role("button", name=f"{name} {model}", exact=True)


def expect_state(page: Page, model: str, state: str) -> None:
    expect(row(page, model).locator(".badge")).to_have_text(state)


def say(page: Page, model: str, text: str) -> Locator:
    """The answer's place."""
    answers = page.locator(".message.assistant")
    place = answers.count()
    page.locator("#chat-model").select_option(model)
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    return answers.nth(place)


def expect_answered(page: Page) -> None:
    expect(page.locator("#chat-send")).to_have_text("Send")


def fall_asleep(server: Server, model: str, level: int) -> None:
    assert server.http.post("/wake_up", params={"model": model}).status_code == 200
    assert server.http.post("/sleep", params={"model": model, "level": level}).json()["level"] == level


def tabbed(page: Page) -> str:
    """The name of what is next, whose focus can be seen."""
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    outline = focused.evaluate("(one) => getComputedStyle(one).outline")
    assert "solid 2px" in outline, outline
    return focused.get_attribute("aria-label") or focused.inner_text()
