"""The ``llm`` command, told of the gateway in its extra-openai-models.yaml."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps import CHAT, run

LLM = Path(sys.executable).with_name("llm")
HOME = tempfile.TemporaryDirectory()
atexit.register(HOME.cleanup)
URL = os.environ["OPENAI_BASE_URL"]
(Path(HOME.name) / "keys.json").write_text(json.dumps({"dormouse": os.environ["OPENAI_API_KEY"]}))
(Path(HOME.name) / "default_model.txt").write_text("dormouse")
(Path(HOME.name) / "extra-openai-models.yaml").write_text(f"""
- model_id: dormouse
  model_name: {CHAT}
  api_base: {URL}
  api_key_name: dormouse
  supports_schema: true
  supports_tools: true
""")
SUM = "def add(a: int, b: int) -> int:\n    'Adds two numbers.'\n    return a + b\n"


def llm(*words: str, typed: str | None = None) -> str:
    """What it printed. It fails with what it complained of."""
    environment = {**os.environ, "LLM_USER_PATH": HOME.name}
    done = subprocess.run([LLM, *words], env=environment, input=typed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def logged(*words: str, **options: Any) -> dict[str, Any]:
    """The log's entry of a prompt that is not streamed."""
    entry: dict[str, Any] = json.loads(llm(*words, "--json", **options))[0]
    return entry


def streamed() -> str:
    answer = llm("Hello!", "-s", "Be brief.")
    entry = logged("logs", "-n", "1")
    assert answer and entry["response"].strip() == answer
    assert entry["input_tokens"] > 0 and entry["output_tokens"] > 0
    return f"{answer!r}, {entry['output_tokens']} tokens"


def unstreamed_and_continued() -> str:
    first = logged("Hello!", "-s", "Be brief.")
    assert first["response_json"]["object"] == "chat.completion"
    assert first["response_json"]["usage"]["total_tokens"] == first["input_tokens"] + first["output_tokens"]
    second = logged("-c", "What is 2 + 2?")
    assert second["response"] and second["conversation_id"] == first["conversation_id"]
    assert second["input_tokens"] > first["input_tokens"] + first["output_tokens"]
    return f"{first['response']!r}, {second['response']!r}"


def chatted() -> str:
    turns = llm("chat", typed="Hello!\nWhat is 2 + 2?\nexit\n").split("\n>")
    assert len(turns) == 4 and turns[1].strip() and turns[2].strip()
    return repr(turns[1:3])


def schema() -> str:
    wanted = {
        "type": "object",
        "properties": {
            "mice": {"type": "integer", "minimum": 0, "maximum": 99},
            "asleep": {"type": "boolean"},
        },
        "required": ["mice", "asleep"],
        "additionalProperties": False,
    }
    entry = logged("How many mice?", "--schema", json.dumps(wanted), "-o", "temperature", "1")
    answer = json.loads(entry["response"])
    assert answer.keys() == wanted["properties"].keys() and type(answer["asleep"]) is bool
    return repr(answer)


def tools() -> str:
    """A tool it may call: this command cannot ask for a call, and so small a model makes none by itself."""
    entry = logged("What is 2 + 2?", "--functions", SUM, "-o", "max_tokens", "60")
    assert entry["response"] and [tool["name"] for tool in entry["tools"]] == ["add"]
    return repr(entry["response"])


run(streamed, unstreamed_and_continued, chatted, schema, tools)
