"""The verbs that talk to a running gateway: ps, sleep, wake, chat, logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.gateway_process import Process, running
from tests.terminal import Terminal, heed_ctrl_c

KEY = "the-key"
DORMOUSE = Path(sys.executable).with_name("dormouse")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Process]:
    with running("fake/quick", "fake/slow", "fake/unwakeable", "--api-key", KEY) as process:
        yield process


def dormouse(
    gateway: Process, *words: str, text: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DORMOUSE, *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment_of(gateway), **environment},
    )


def dormouse_with_bytes(
    gateway: Process, text: bytes, *words: str, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [DORMOUSE, *words],
        input=text,
        capture_output=True,
        timeout=60,
        env={**environment_of(gateway), **environment},
    )


def environment_of(gateway: Process) -> dict[str, str]:
    return {**os.environ, "DORMOUSE_URL": gateway.url, "DORMOUSE_API_KEY": KEY}


def in_terminal(gateway: Process, *words: str) -> Terminal:
    return Terminal(DORMOUSE, *words, DORMOUSE_URL=gateway.url, DORMOUSE_API_KEY=KEY)


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a verb that could not do what it was asked."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    return done.stderr


def test_ps_lists_the_models_in_plain_lines(gateway: Process) -> None:
    said(dormouse(gateway, "wake", "fake/quick"))
    header, *lines = said(dormouse(gateway, "ps")).splitlines()
    assert header.split("  ")[0] == "MODEL"
    assert [line.split()[0] for line in lines] == ["fake/quick", "fake/slow", "fake/unwakeable"]
    assert lines[0].split()[1] == "awake"
    assert "110.0 MiB" in lines[0] or "111.0 MiB" in lines[0]


def test_ps_as_json_is_the_whole_status(gateway: Process) -> None:
    status = json.loads(said(dormouse(gateway, "ps", "--json")))
    assert status.keys() >= {"models", "device", "host"}
    assert status["models"][0]["name"] == "fake/quick"


def test_a_model_sleeps_and_wakes(gateway: Process) -> None:
    assert said(dormouse(gateway, "sleep", "fake/quick", "--level", "2")) == "fake/quick sleeps at level 2\n"
    assert "asleep (2)" in said(dormouse(gateway, "ps"))
    assert said(dormouse(gateway, "wake", "fake/quick")).splitlines()[-1].startswith("fake/quick is awake")


def test_one_question_is_answered_once(gateway: Process) -> None:
    for words, text in ((["one question"], "not read"), ([], "one question\n")):
        answer = said(dormouse(gateway, "chat", "fake/quick", *words, text=text))
        assert answer.startswith("Hello from fake/quick") and "one question" in answer
        assert "\x1b" not in answer and "not read" not in answer
        told = json.loads(said(dormouse(gateway, "chat", "fake/quick", *words, "--json", text=text)))
        assert (told["model"], told["content"] + "\n", told["reasoning"]) == ("fake/quick", answer, None)


def test_without_a_model_the_first_answers(gateway: Process) -> None:
    assert said(dormouse(gateway, "chat", text="hello")).startswith("Hello from fake/quick")


def test_an_empty_question_is_refused(gateway: Process) -> None:
    assert "empty" in refused(dormouse(gateway, "chat", "fake/quick", text="\n"))


def test_sleep_and_wake_as_json(gateway: Process) -> None:
    told = json.loads(said(dormouse(gateway, "sleep", "fake/quick", "--level", "1", "--json")))
    assert told == {"model": "fake/quick", "level": 1}
    told = json.loads(said(dormouse(gateway, "wake", "fake/quick", "--json")))
    assert (told["model"], told["level"], told["cause"]) == ("fake/quick", 1, "manual")
    assert told["seconds"] > 0 and "phases" in told


def test_what_goes_wrong_is_one_line(gateway: Process) -> None:
    for verb in ("sleep", "wake", "chat"):
        assert "there is: fake/quick" in refused(dormouse(gateway, verb, "nobody"))
        assert "(did you mean `fake/slow`?)" in refused(dormouse(gateway, verb, "fake/slwo"))
    assert "--api-key or DORMOUSE_API_KEY" in refused(dormouse(gateway, "ps", DORMOUSE_API_KEY="wrong"))
    assert "--api-key or DORMOUSE_API_KEY" in refused(dormouse(gateway, "ps", "--api-key", "wrong"))
    nobody = "http://127.0.0.1:9"
    assert refused(dormouse(gateway, "ps", "--url", nobody)).startswith(f"nothing answers at {nobody}")
    assert refused(dormouse(gateway, "ps", "--url", "http://here:x")).startswith("http://here:x: ")


def test_the_url_s_scheme_may_be_left_out(gateway: Process) -> None:
    address = gateway.url.removeprefix("http://")
    for url in (address, address.replace("127.0.0.1", "localhost"), f"{address}/"):
        assert "MODEL" in said(dormouse(gateway, "ps", "--url", url))
    assert refused(dormouse(gateway, "ps", "--url", "localhost:9")).startswith(
        "nothing answers at http://localhost:9:"
    )


def test_what_is_not_utf_8_is_named_as_such(gateway: Process) -> None:
    for words, text, locale in (
        ([], b"caf\xe9", "C"),
        ([], b"caf\xe9", "C.UTF-8"),
        (["caf\udce9"], b"", "C"),
    ):
        done = dormouse_with_bytes(gateway, text, "chat", "fake/quick", *words, LC_ALL=locale)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr == b"what is to be sent is not UTF-8\n"


def test_output_that_cannot_be_written_is_one_line(gateway: Process) -> None:
    for verb in (["ps"], ["logs", "--json"], ["chat", "fake/quick", "hello"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [DORMOUSE, *verb], stdout=full, stderr=subprocess.PIPE, text=True, env=environment_of(gateway)
            )
        assert (done.returncode, done.stderr) == (1, f"dormouse {verb[0]}: No space left on device\n")


def test_as_json_what_goes_wrong_is_an_error_object_too(gateway: Process) -> None:
    done = dormouse(gateway, "wake", "nobody", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, done.stderr) == (1, error["message"] + "\n")
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        "model",
        "model_not_found",
    )
    done = dormouse(gateway, "ps", "--json", "--url", "http://127.0.0.1:9")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, done.stderr) == (1, error["message"] + "\n")
    assert (error["type"], error["param"], error["code"]) == ("command_error", None, "unreachable")


def test_logs_tell_of_transitions(gateway: Process) -> None:
    said(dormouse(gateway, "wake", "fake/quick"))
    said(dormouse(gateway, "sleep", "fake/quick", "--level", "1"))
    lines = said(dormouse(gateway, "logs", "fake/quick")).splitlines()
    *_, name, transition, why = lines[-1].split("  ")
    assert (name, transition) == ("fake/quick", "draining -> asleep (1)")
    assert why.startswith("manual, ") and why.endswith(" MiB")
    events = [json.loads(line) for line in said(dormouse(gateway, "logs", "--json")).splitlines()]
    assert {event["model"] for event in events} >= {"fake/quick", "fake/slow"}
    assert "(did you mean `fake/quick`?)" in refused(dormouse(gateway, "logs", "fake/quik"))


def test_logs_go_on_with_what_happens(gateway: Process) -> None:
    said(dormouse(gateway, "wake", "fake/quick"))
    with running_verb(gateway, "logs", "--follow", "--json", "fake/quick") as lines:
        assert json.loads(next(lines))["before"] == "cold"
        said(dormouse(gateway, "sleep", "fake/quick", "--level", "2"))
        assert any(json.loads(line)["level"] == 2 for line in lines)


def test_in_a_terminal_chat_prompts_and_ctrl_c_stops_an_answer_only(gateway: Process) -> None:
    with in_terminal(gateway, "chat", "fake/slow") as terminal:
        terminal.expect("> ")
        terminal.type("tell me a long story " * 8 + "\n")
        terminal.expect("Hello from")
        terminal.type("\x03")
        terminal.expect("(stopped)")
        terminal.expect("> ")
        terminal.type("/exit\n")
        assert terminal.exit_code() == 0


def test_in_a_terminal_ps_is_a_table(gateway: Process) -> None:
    with in_terminal(gateway, "ps") as terminal:
        terminal.expect("MODEL")
        terminal.expect("fake/slow")
        terminal.expect("parked in RAM")
        assert terminal.exit_code() == 0


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
def test_watching_in_a_terminal_ends_with_q_or_ctrl_c(gateway: Process, key: str, code: int) -> None:
    with in_terminal(gateway, "ps", "--watch") as terminal:
        terminal.expect("parked in RAM")
        terminal.type(key)
        assert terminal.exit_code() == code
        assert "Traceback" not in terminal.shown


def test_a_model_chosen_by_an_alias_is_the_one_marked() -> None:
    with (
        running("fake/quick", "--served-model-name", "quick", "--served-model-name", "alias") as gateway,
        in_terminal(gateway, "chat", "alias") as terminal,
    ):
        terminal.expect("Chatting with quick")
        terminal.type("/model alias\n")
        terminal.expect("Now with quick.")
        terminal.type("/models\n")
        terminal.expect("* quick")


def test_watching_elsewhere_prints_what_has_changed(gateway: Process) -> None:
    said(dormouse(gateway, "wake", "fake/quick"))
    with running_verb(gateway, "ps", "--watch", "--json") as lines:
        assert state_of(json.loads(next(lines))) == ("awake", None)
        said(dormouse(gateway, "sleep", "fake/quick", "--level", "1"))
        assert ("asleep", 1) in (state_of(json.loads(line)) for line in lines)


@contextmanager
def running_verb(gateway: Process, *words: str) -> Iterator[Iterator[str]]:
    environment = environment_of(gateway)
    command = [DORMOUSE, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, text=True, env=environment, preexec_fn=heed_ctrl_c) as verb:
        assert verb.stdout is not None
        try:
            yield verb.stdout
            verb.send_signal(signal.SIGINT)
            assert verb.wait(timeout=20) == 130
        finally:
            verb.kill()


def state_of(status: dict[str, Any]) -> tuple[str, int | None]:
    return status["models"][0]["state"], status["models"][0]["level"]
