"""A user at a terminal, and the real server with the demo models."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine.demo
from tests.e2e.server import DORMOUSE, Server, running
from tests.terminal import Terminal

DEMO = Path(engine.demo.__file__).parent
CONFIG = f"""
[models.demo-a]
path = "{DEMO / "demo-a"}"
[models.demo-b]
path = "{DEMO / "demo-b"}"
"""
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("terminal"), CONFIG) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def at(server: Server, home: Path, *words: str) -> Terminal:
    return Terminal(DORMOUSE, *words, DORMOUSE_URL=server.url, XDG_STATE_HOME=str(home))


def answered(chat: Terminal, typed: str, answer: str) -> None:
    chat.expect(">>> ")
    chat.type(f"{typed}\n")
    chat.expect(f"{typed}\n")
    chat.expect(answer)


def interrupt(chat: Terminal) -> None:
    """A moment after the last key, as people do: Python's prompt misses a signal in the midst of a key."""
    time.sleep(0.2)
    chat.type(CTRL_C)


def test_a_conversation(server: Server, home: Path) -> None:
    with at(server, home, "chat") as chat:
        chat.expect("Chatting with demo-a")
        answered(chat, "What is Dormouse?", "gateway")
        chat.expect(">>> ")
        chat.type('"""one\n')
        chat.expect("... ")
        chat.type('two """\n')
        answered(chat, "/models", "* demo-a\n  demo-b\n")
        answered(chat, "/model demo-b", "Now with demo-b.")
        answered(chat, "/model demo-x", "did you mean `demo-a`?")
        answered(chat, "/modle", "no command /modle; did you mean /model?")
        chat.expect(">>> ")
        chat.type("half a line")
        chat.expect("half a line")
        interrupt(chat)
        chat.expect("Ctrl-D or /exit leaves.")
        answered(chat, "Who are you?", "I am")
        chat.expect(">>> ")
        chat.type(CTRL_D)
        assert chat.exit_code() == 0
    asked = server.http.get("/metrics").text
    assert 'model="demo-b"' in asked

    history = home / "dormouse" / "chat_history"
    assert "What is Dormouse?" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    with at(server, home, "chat", "demo-b") as again:
        again.expect(">>> ")
        again.type(UP)
        again.expect("Who are you?")
        interrupt(again)
        again.expect(">>> ")
        again.type(CTRL_D)
        assert again.exit_code() == 0


def test_watching_a_wake_a_sleep_and_a_restart(server: Server, home: Path) -> None:
    server.http.post("/sleep?level=2")
    with at(server, home, "ps", "--watch") as watch:
        watch.expect("demo-a")
        server.http.post("/wake_up?model=demo-a")
        watch.expect("awake")
        assert "\x1b[32mawake" in watch.raw
        server.http.post("/sleep?model=demo-a&level=1")
        watch.expect("asleep (1)")
        assert server.process is not None
        server.signal(signal.SIGTERM)
        server.process.wait(20)
        watch.expect("trying again")
        server.start()
        watch.expect("cold")
        watch.type("q")
        assert watch.exit_code() == 0


def test_without_colours_there_are_none(server: Server, home: Path) -> None:
    with Terminal(DORMOUSE, "ps", DORMOUSE_URL=server.url, NO_COLOR="1") as ps:
        ps.expect("demo-b")
        ps.expect("parked in RAM")
        assert ps.exit_code() == 0
        assert not any(f"\x1b[{code}" in ps.raw for code in range(30, 40))


def test_a_port_in_use_says_by_what(server: Server) -> None:
    done = subprocess.run(
        [DORMOUSE, "serve", str(DEMO / "demo-a"), "--port", str(server.port)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert server.process is not None
    told = f"port {server.port} is in use by dormouse (pid {server.process.pid}): stop it, or use --port"
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
