"""Pictures of the dashboard asleep, waking, under load, in trouble; light and dark; on a desktop and a phone.

Runs the real server with the demo models and two of random weights, one of them 1.2 GB so that its wake can
be seen, and drives Chromium. The directory also takes the checkpoints.
"""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

import engine
from tests.bench.random_checkpoint import write_checkpoint
from tests.e2e.server import Server, running

DEMO = Path(engine.__file__).parent / "demo"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
LONG = "some-organisation/a_model_whose_name_never_ends_and_has_no_place_to_break-" + "0123456789" * 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    paths = {shape: checkpoint(directory, shape) for shape in ("0.6b", "60m")}
    with running(directory, config(paths)) as server, sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        take_all(browser, server, directory)
        take_troubles(browser, server, directory)
        take_crowd(browser, directory, paths["60m"])
        browser.close()


def checkpoint(directory: Path, shape: str) -> Path:
    path = directory / shape
    return path if path.exists() else write_checkpoint(path, shape, seed=1)


def config(paths: dict[str, Path]) -> str:
    return f"""
[models.demo-a]
path = "{DEMO / "demo-a"}"
aliases = ["gpt-4o-mini"]
idle_timeout = "8s"
level = 1
[models.demo-b]
path = "{DEMO / "demo-b"}"
idle_timeout = "5s"
level = 2
[models."Qwen/Qwen3-0.6B"]
path = "{paths["0.6b"]}"
level = 2
[models.a-small-model-with-quite-a-long-name-v2-instruct]
path = "{paths["60m"]}"
pinned = true
"""


def take_all(browser: Browser, server: Server, directory: Path) -> None:
    """Some life first, so that there is something to see."""
    for _ in range(2):
        for model in ("demo-a", "demo-b"):
            chat(server, model)
        server.wait_state("demo-a", "asleep", 1)
        server.wait_state("demo-b", "asleep", 2)
    for level in (1, 2, 1):
        act(server, "wake_up", "Qwen/Qwen3-0.6B")
        act(server, "sleep", "Qwen/Qwen3-0.6B", level=level)
    for scheme in ("light", "dark"):
        for size in SIZES:
            with page_of(browser, server, scheme, size) as page:
                take_three(page, server, directory, f"{size}-{scheme}")


def take_three(page: Page, server: Server, directory: Path, name: str) -> None:
    act(server, "sleep", "Qwen/Qwen3-0.6B", level=2)
    server.wait_state("demo-a", "asleep", 1)
    page.wait_for_selector("#models [data-kind='asleep-2']")
    page.wait_for_timeout(1500)
    page.screenshot(path=directory / f"asleep-{name}.png", full_page=True)
    page.locator("#chat-model").select_option("Qwen/Qwen3-0.6B")
    page.get_by_label("Message", exact=True).fill("Tell me a story of a dormouse.")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.wait progress').value > 0.3")
    page.screenshot(path=directory / f"waking-{name}.png", full_page=True)
    with load(server):
        page.wait_for_selector(".said")
        page.get_by_role("button", name="Stop").click()
        page.locator("#chat-model").select_option("demo-a")
        page.get_by_label("Message", exact=True).fill("How does sleep work?")
        page.keyboard.press("Enter")
        page.wait_for_timeout(6000)
        page.screenshot(path=directory / f"load-{name}.png", full_page=True)


def take_troubles(browser: Browser, server: Server, directory: Path) -> None:
    """An answer that failed while the server was away, and a key asked for."""
    with page_of(browser, server, "light", "desktop") as page:
        page.wait_for_selector("#models li")
        server.stop()
        page.get_by_label("Message", exact=True).fill("Are you there?")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-connection='lost']")
        page.get_by_text("Latest transitions in words").click()
        page.wait_for_timeout(500)
        page.screenshot(path=directory / "lost-desktop-light.png", full_page=True)
    with running(directory, f'api_keys = ["secret"]\n[models.demo-a]\npath = "{DEMO / "demo-a"}"') as closed:
        for scheme, size in (("dark", "phone"), ("light", "desktop")):
            with page_of(browser, closed, scheme, size) as page:
                page.wait_for_selector("dialog[open]")
                page.screenshot(path=directory / f"key-{size}-{scheme}.png")


def take_crowd(browser: Browser, directory: Path, path: Path) -> None:
    """Thirty models: failed, draining, never loaded, pinned, of a very long name, and one that embeds."""
    with running(directory, crowd(directory, path)) as server:
        for number in range(3, 9):
            act(server, "wake_up", f"team/model-{number:02}")
            act(server, "sleep", f"team/model-{number:02}", level=1 + number % 2)
        for model in ("embedder", "pinned", LONG):
            act(server, "wake_up", model)
        for model in ("broken", "odd"):
            server.http.post("/wake_up", params={"model": model})
        for scheme in ("light", "dark"):
            for size in SIZES:
                with page_of(browser, server, scheme, size) as page, drained(server, page, "team/model-02"):
                    page.get_by_role("button", name="Wake broken", exact=True).click()
                    page.wait_for_timeout(1500)
                    page.screenshot(path=directory / f"crowd-{size}-{scheme}.png", full_page=True)
                    page.get_by_role("heading", name="team/model-03").scroll_into_view_if_needed()
                    page.locator("#models").screenshot(path=directory / f"rows-{size}-{scheme}.png")


def crowd(directory: Path, path: Path) -> str:
    (broken := directory / "broken").mkdir(exist_ok=True)
    (odd := directory / "odd").mkdir(exist_ok=True)
    (odd / "config.json").write_text('{"architectures": ["MambaForCausalLM"], "model_type": "mamba"}')
    embedder = write_checkpoint(directory / "embedder", "60m", architectures=["Qwen3Model"])
    paths = {"broken": broken, "odd": odd, "embedder": embedder, "pinned": path, LONG: path}
    paths |= {f"team/model-{number:02}": path for number in range(1, 26)}
    sections = [f'[models."{name}"]\npath = "{path}"' for name, path in paths.items()]
    return "\n".join(sections).replace('[models."pinned"]', '[models."pinned"]\npinned = true')


@contextmanager
def drained(server: Server, page: Page, model: str) -> Iterator[None]:
    """Asked to sleep while a long answer is on its way."""
    page.locator("#chat-model").select_option(model)
    page.get_by_label("Message", exact=True).fill("Go on for long.")
    page.keyboard.press("Enter")
    page.wait_for_selector(".said")
    sleeper = threading.Thread(target=act, args=(server, "sleep", model), kwargs={"level": 1})
    sleeper.start()
    page.wait_for_selector("#models [data-kind='draining']")
    yield
    page.get_by_role("button", name="Stop").click()
    sleeper.join()


@contextmanager
def page_of(browser: Browser, server: Server, scheme: str, size: str) -> Iterator[Page]:
    width, height = SIZES[size]
    viewport = {"width": width, "height": height}
    context = browser.new_context(viewport=viewport, color_scheme=scheme, bypass_csp=True)  # to wait for more
    page = context.new_page()
    page.goto(server.url)
    yield page
    context.close()


@contextmanager
def load(server: Server) -> Iterator[None]:
    """Eight clients, until the end."""
    over = threading.Event()
    clients = [threading.Thread(target=ask_on, args=(server.url, over, number)) for number in range(8)]
    for client in clients:
        client.start()
    yield
    over.set()
    for client in clients:
        client.join()


def ask_on(url: str, over: threading.Event, number: int) -> None:
    model = ("a-small-model-with-quite-a-long-name-v2-instruct", "demo-a")[number % 2]
    while not over.is_set():
        json = {"model": model, "messages": [{"role": "user", "content": "Count to 30."}], "max_tokens": 60}
        httpx.post(f"{url}/v1/chat/completions", json=json, timeout=60)
        time.sleep(0.05)


def chat(server: Server, model: str) -> None:
    json = {"model": model, "messages": [{"role": "user", "content": "What is 7 plus 5?"}]}
    server.http.post("/v1/chat/completions", json=json).raise_for_status()


def act(server: Server, verb: str, model: str, **query: int) -> None:
    server.http.post(f"/{verb}", params={"model": model, **query}).raise_for_status()


if __name__ == "__main__":
    main()
