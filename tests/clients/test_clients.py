"""The clients people use, each as its users write it, against one real server."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Server, running
from tests.engine.encoders import minilm

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DEMO = ROOT / "engine" / "demo" / "demo-a"
KEY = "sk-clients"
PYTHON_CLIENTS = {
    "openai": (".venv-clients", "use_openai.py"),
    "openai-2": (".venv-litellm", "use_openai.py"),
    "langchain": (".venv-clients", "use_langchain.py"),
    "pydantic-ai": (".venv-clients", "use_pydantic_ai.py"),
    "llm": (".venv-clients", "use_llm.py"),
    "litellm": (".venv-litellm", "use_litellm.py"),
    "instructor": (".venv-litellm", "use_instructor.py"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = f'api_keys = ["{KEY}"]\n[models.demo]\npath = "{DEMO}"\n[models.minilm]\npath = "{minilm()}"\n'
    with running(tmp_path_factory.mktemp("clients"), config) as server:
        yield server


@pytest.mark.parametrize(("environment", "script"), PYTHON_CLIENTS.values(), ids=PYTHON_CLIENTS)
def test_python(server: Server, tmp_path: Path, environment: str, script: str) -> None:
    python = ROOT / environment / "bin" / "python"
    assert (python.parents[1] / ".installed").exists(), f"make {environment}/.installed"
    run(server, tmp_path, python, HERE / "scripts" / script)


def node_major() -> int:
    """0 without node and npm."""
    if not (shutil.which("node") and shutil.which("npm")):
        return 0
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(version.removeprefix("v").partition(".")[0])


@pytest.mark.skipif(node_major() < 20, reason="the clients for node need node 20 or newer, and npm")
@pytest.mark.parametrize("script", ["use_openai.mjs", "use_ai_sdk.mjs"], ids=["openai", "ai-sdk"])
def test_node(server: Server, tmp_path: Path, script: str) -> None:
    installed = HERE / "node" / "node_modules" / ".installed"
    assert installed.exists(), f"make {installed.relative_to(ROOT)}"
    run(server, tmp_path, Path("node"), HERE / "node" / script)


def run(server: Server, home: Path, interpreter: Path, script: Path) -> None:
    """The script in an environment of its own, in which no client reaches another machine."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(HERE / "offline"),
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "OPENAI_API_KEY": KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    done = subprocess.run([interpreter, script], env=environment, capture_output=True, text=True, timeout=120)
    print(done.stdout)
    assert done.returncode == 0 and done.stdout, f"{done.stdout}\n{done.stderr}"
