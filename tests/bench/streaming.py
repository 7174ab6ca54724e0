"""What HTTP adds to a streamed token: `python -m tests.bench.streaming [CHECKPOINT]`.

CPU seconds of the server for many streams at once, less those of the same engine in a process without HTTP
in front, all in this one run; and the same of the event loop's thread alone, where all of HTTP runs. The
engine's thread does the same in both, but on a shared machine swings by more than what is measured. The
load comes from a raw client in a process of its own, which counts what arrives and parses nothing. Prints a
table and one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import uvloop

import engine
from engine import EngineOptions, GenerateRequest, SamplingParams
from tests.bench.random_checkpoint import write_checkpoint
from tests.e2e.server import Server, running

SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 4096}
"""So that steps are short and what is around them shows."""
TEMPLATE = (
    "{{ tools | tojson }}<tool_call></tool_call>"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if enable_thinking %}<think></think><think>{% endif %}"
)
"""Of a model that may reason first."""


class Cpu(NamedTuple):
    """Seconds, user and system."""

    process: float
    loop: float
    """The thread of the event loop, a process's first."""

    @classmethod
    def of(cls, pid: int) -> Cpu:
        return cls(*(_seconds(Path(f"/proc/{pid}{thread}/stat")) for thread in ("", f"/task/{pid}")))

    def since(self, before: Cpu) -> Cpu:
        return Cpu(self.process - before.process, self.loop - before.loop)


def _seconds(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _generate(checkpoint: str, prompts: list[list[int]], tokens: int) -> Cpu:
    """What it took, the second time."""
    made = engine.open(checkpoint, options=EngineOptions(max_running=len(prompts), prefix_cache=False))
    await made.load()
    await made.wake()
    sampling = SamplingParams(max_tokens=tokens, temperature=1.0, ignore_eos=True)

    async def one(prompt: list[int]) -> None:
        async for _ in made.generate(GenerateRequest(prompt_ids=prompt, sampling=sampling)):
            pass

    for _ in range(2):
        before = Cpu.of(os.getpid())
        await asyncio.gather(*(one(prompt) for prompt in prompts))
        spent = Cpu.of(os.getpid()).since(before)
    await made.close()
    return spent


def completion(seed: int) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"prompt": f"A question of some length with a number in it, {seed}"}


def chat(seed: int) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": f"Question {seed}"}]
    return "/v1/chat/completions", {"messages": messages, "reasoning_effort": "none"}


def chat_with_tools(seed: int) -> tuple[str, dict[str, Any]]:
    """Whose every token is looked at, for it may begin a call or end the reasoning."""
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    return "/v1/chat/completions", {**chat(seed)[1], "tools": tools, "reasoning_effort": "low"}


KINDS = {"completions": completion, "chat": chat, "chat with tools": chat_with_tools}


async def _load(kind: str, port: int, clients: int, tokens: int) -> None:
    async def one(seed: int) -> None:
        route, asked = KINDS[kind](seed)
        body = {"model": "m", "max_tokens": tokens, "temperature": 1, "ignore_eos": True, "stream": True}
        content = json.dumps({**body, **asked}).encode()
        head = f"POST {route} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {len(content)}"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + content)
        answer = await reader.read(-1)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200") and b"[DONE]" in answer, answer[:300]

    await asyncio.gather(*(one(seed) for seed in range(clients)))


def in_process(work: Callable[..., Any], *args: Any) -> Any:
    """``work`` in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (work, args))


def _run(work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return uvloop.new_event_loop().run_until_complete(work(*args))


def serve(server: Server, kind: str, clients: int, tokens: int) -> Cpu:
    assert server.process
    before = Cpu.of(server.process.pid)
    in_process(_load, kind, server.port, clients, tokens)
    return Cpu.of(server.process.pid).since(before)


def prompt_ids(server: Server, kind: str, seed: int) -> list[int]:
    asked = KINDS[kind](seed)[1]
    found = server.http.post("/tokenize", json={"model": "m", **asked}).raise_for_status()
    ids: list[int] = found.json()["tokens"]
    return ids


def measure(
    checkpoint: str, directory: Path, clients: int, tokens: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Microseconds of CPU a token of engine and server, by kind; by turns, since machines have moods."""
    spent: dict[str, list[tuple[Cpu, Cpu]]] = {kind: [] for kind in KINDS}
    (directory / "chat.jinja").write_text(TEMPLATE)
    model = (
        f'path = "{checkpoint}"\nmax_running = {clients}\nchat_template = "chat.jinja"\nprefix_cache = false'
    )
    with running(directory, f"[models.m]\n{model}\n") as server:
        prompts = {kind: [prompt_ids(server, kind, seed) for seed in range(clients)] for kind in KINDS}
        for _ in range(rounds + 1):
            for kind in KINDS:
                alone = in_process(_generate, checkpoint, prompts[kind], tokens)
                spent[kind].append((alone, serve(server, kind, clients, tokens)))
    microseconds = 1e6 / (clients * tokens)
    return {kind: _summary(pairs, microseconds) for kind, (_, *pairs) in spent.items()}  # the first warmed up


def _summary(pairs: list[tuple[Cpu, Cpu]], microseconds: float) -> dict[str, float]:
    found = {
        "engine_us": median(alone.process for alone, _ in pairs),
        "server_us": median(served.process for _, served in pairs),
        "added_us": median(served.process - alone.process for alone, served in pairs),
        "added_to_loop_us": median(served.loop - alone.loop for alone, served in pairs),
    }
    return {name: seconds * microseconds for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the figures, too")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other would count as CPU time
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = options.checkpoint or str(write_checkpoint(Path(directory) / "m", "60m", **SMALL))
        took = measure(checkpoint, Path(directory), options.clients, options.tokens, options.rounds)
    print(f"{options.clients} clients, {options.tokens} tokens each, median of {options.rounds} rounds")
    print("us of CPU a token: engine alone, server, what HTTP adds, the same of the event loop's thread")
    for kind, us in took.items():
        print(f"{kind:16}", *(f"{value:7.1f}" for value in us.values()))
    figures = {"clients": options.clients, "tokens": options.tokens, **took}
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
