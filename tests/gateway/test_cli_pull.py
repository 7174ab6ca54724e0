"""`dormouse pull`, from a hub on this machine."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import engine.demo
from engine.hub import _check_space
from engine.hub_errors import explain
from tests import hub
from tests.bench.random_checkpoint import write_checkpoint
from tests.e2e.server import DORMOUSE
from tests.terminal import heed_ctrl_c

DEMO = Path(engine.demo.__file__).parent / "demo-a"


@pytest.fixture
def served() -> Iterator[hub.Hub]:
    with hub.serve() as served:
        served.publish("mice/dormouse", DEMO)
        yield served


def pull(url: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [DORMOUSE, "pull", *words], env=environment, cwd=home, capture_output=True, text=True, timeout=60
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    return done.stderr


def test_a_model_is_here_once_it_was_pulled(served: hub.Hub, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[models.mouse]\npath = "mice/dormouse"\naliases = ["m"]')
    size = (DEMO / "model.safetensors").stat().st_size / 2**20
    first = pull(served.url, tmp_path, "mouse")
    assert first.returncode == 0, first.stderr
    downloading, here = first.stdout.splitlines()
    assert downloading == f"downloading {size:.1f} MiB"
    directory = Path(here.removeprefix("mouse is here: "))
    assert (directory / "model.safetensors").read_bytes() == (DEMO / "model.safetensors").read_bytes()
    asked = served.fetched()

    served.requests.clear()
    told = json.loads(pull(served.url, tmp_path, "m", "--json").stdout)
    assert told == {"model": "mouse", "path": "mice/dormouse", "directory": str(directory)}
    assert asked >= {"config.json", "model.safetensors"} and not served.fetched()


def test_the_size_of_all_files_is_known_from_the_start(served: hub.Hub, tmp_path: Path) -> None:
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 4096}
    sharded = write_checkpoint(tmp_path / "sharded", "60m", shard_bytes=2**19, **shape)
    files = list(sharded.glob("*.safetensors"))
    assert len(files) > 2
    served.publish("mice/sharded", sharded)
    size = sum(file.stat().st_size for file in files) / 2**20
    said = pull(served.url, tmp_path, "mice/sharded").stdout
    assert said.startswith(f"downloading {size:.1f} MiB\n")


def test_a_file_that_was_refused_is_all_that_is_fetched_again(served: hub.Hub, tmp_path: Path) -> None:
    served.broken.add("model.safetensors")
    assert refused(pull(served.url, tmp_path, "mice/dormouse")).startswith("mice/dormouse: ")
    served.broken.clear()
    served.requests.clear()
    assert pull(served.url, tmp_path, "mice/dormouse").returncode == 0
    assert served.fetched() == {"model.safetensors"}


def test_a_connection_that_breaks_is_an_error(served: hub.Hub, tmp_path: Path) -> None:
    served.cut.add("model.safetensors")
    in_the_middle = pull(served.url, tmp_path, "mice/dormouse", "--json")
    assert in_the_middle.returncode == 1
    said = json.loads(in_the_middle.stdout)["error"]["message"]
    assert said.startswith("mice/dormouse: the connection to the hub broke: ")
    served.resets = True
    before_any_byte = refused(pull(served.url, tmp_path / "another", "mice/dormouse"))
    assert before_any_byte.startswith("mice/dormouse: the connection to the hub broke: ")
    assert served.url in before_any_byte


def test_what_is_whole_needs_no_hub(served: hub.Hub, tmp_path: Path) -> None:
    first = pull(served.url, tmp_path, "mice/dormouse")
    shutil.rmtree(tmp_path / "hub" / "models--mice--dormouse" / "trees")  # as before huggingface_hub 2
    again = pull("http://127.0.0.1:9", tmp_path, "mice/dormouse")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == first.stdout.splitlines(keepends=True)[-1]


def test_weights_that_no_hub_has_are_named(
    served: hub.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.broken.add("model.safetensors")
    pull(served.url, tmp_path, "mice/dormouse")
    shutil.rmtree(tmp_path / "hub" / "models--mice--dormouse" / "trees")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(engine.CheckpointError) as raised:
        engine.download("mice/dormouse")
    assert str(raised.value) == "mice/dormouse: not here, and the hub does not answer at http://127.0.0.1:9"
    assert raised.value.reason == "mice/dormouse cannot be downloaded: the hub does not answer"


def test_what_goes_wrong_is_one_line(served: hub.Hub, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[models.mouse]\npath = "mice/dormouse"')
    strange = Path(shutil.copytree(DEMO, tmp_path / "strange"))
    (strange / "config.json").write_text('{"architectures": ["StrangeForCausalLM"], "model_type": "strange"}')
    served.publish("mice/strange", strange)
    assert "no such repository on the hub" in refused(pull(served.url, tmp_path, "mice/unknown"))
    assert "Strange" in refused(pull(served.url, tmp_path, "mice/strange"))
    assert "model.safetensors" not in served.fetched(), "nobody wants its weights"
    assert "did you mean mouse?" in refused(pull(served.url, tmp_path, "mousse"))
    assert "dormouse init" in refused(pull(served.url, tmp_path / "strange", "mousse"))
    nobody = refused(pull("http://127.0.0.1:9", tmp_path / "strange", "mice/dormouse"))
    assert "the hub does not answer at http://127.0.0.1:9" in nobody


def test_what_is_gated_says_how_to_get_in(served: hub.Hub, tmp_path: Path) -> None:
    served.answer = lambda path: (403, {"X-Error-Code": "GatedRepo"}, b"{}")  # type: ignore[method-assign]
    assert "gated: ask for access" in refused(pull(served.url, tmp_path, "mice/dormouse"))


def test_a_full_disk_is_named() -> None:
    said = explain(OSError(errno.ENOSPC, "No space left on device"), "main")
    assert said.startswith("no space left in /") and "HF_HOME" in said


def test_what_cannot_fit_on_the_disk_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=3 * 2**20 - 1))
    with pytest.raises(engine.CheckpointError, match="mice/large: 4 MiB to download, 2 MiB free in /"):
        _check_space("mice/large", 3 * 2**20 + 1)
    _check_space("mice/small", 2**20)


def test_ctrl_c_leaves_at_once(served: hub.Hub, tmp_path: Path) -> None:
    asked, over, answer = threading.Event(), threading.Event(), served.answer

    def slowly(path: str) -> tuple[int, dict[str, str], bytes]:
        if path.endswith(".safetensors"):
            asked.set()
            over.wait(30)
        return answer(path)

    served.answer = slowly  # type: ignore[method-assign]
    environment = {**os.environ, **served.environment(tmp_path)}
    command = [DORMOUSE, "pull", "mice/dormouse"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stderr=pipe, text=True, preexec_fn=heed_ctrl_c) as verb:
        assert asked.wait(30)
        verb.send_signal(signal.SIGINT)
        _, said = verb.communicate(timeout=10)
        over.set()
    assert verb.returncode == 130
    assert said == "mice/dormouse: stopped; what is whole stays, and is not fetched again\n"


def test_a_directory_needs_no_download(tmp_path: Path) -> None:
    assert pull("http://127.0.0.1:9", tmp_path, str(DEMO)).stdout == f"{DEMO} is here: {DEMO}\n"


def test_a_process_may_download_twice() -> None:
    assert {engine.download(str(DEMO)) for _ in range(2)} == {str(DEMO)}


def test_in_a_terminal_a_bar_is_shown(served: hub.Hub, tmp_path: Path) -> None:
    control, terminal = pty.openpty()
    environment = {**os.environ, **served.environment(tmp_path), "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [DORMOUSE, "pull", "mice/dormouse"], env=environment, cwd=tmp_path, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        while b"is here: " not in shown:
            shown += os.read(control, 4096)
        assert process.wait(timeout=20) == 0
    os.close(control)
    assert b"downloading" in shown
