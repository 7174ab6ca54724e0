"""Six models in a budget for two, and clients who do not care: random models, prompts and lengths, some leave
early, some put models to sleep by hand. No wrong token, no lost or hung request, no wait past ``max_wait``,
and no growth of memory.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
import torch
from openai import AsyncOpenAI
from tokenizers import Tokenizer

import engine
from engine.engine import TorchEngine
from tests.bench.random_checkpoint import write_checkpoint
from tests.e2e.server import Server, running
from tests.engine.harness import RecordingDecoder, collect, greedy
from tests.exact import Reference, assert_same

MIB = 2**20
MODELS = ("m1", "m2", "m3", "m4", "m5", "m6")
CLIENTS = 32
SHAPE = {"num_hidden_layers": 4, "vocab_size": 8192}
"""15 MiB of weights each."""
LIMIT = 50 * MIB
"""For two of them, and the KV of their sequences."""
PROMPTS = tuple(f"Question {number}: " + "why? " * 6 * number for number in range(4))
LONGEST = 24
MAX_WAIT = 60.0
SLACK = 24 * MIB
"""Bytes that the allocator's free lists may come and go by."""

Asked = tuple[str, str]
"""Model and prompt."""


def config(checkpoints: dict[str, Path]) -> str:
    sections = "".join(f'[models.{name}]\npath = "{path}"\n' for name, path in checkpoints.items())
    return f"""
[sleep]
idle_timeout = "2s"
deepen_after = "2s"
[memory]
device_limit = "{LIMIT // MIB}MiB"
[queue]
turn = "500ms"
min_awake = "100ms"
max_wait = "{MAX_WAIT}s"
{sections}
"""


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("six")
    return {
        name: write_checkpoint(root / name, "60m", seed=seed, **SHAPE) for seed, name in enumerate(MODELS)
    }


@pytest.fixture(scope="module")
def ids(six: dict[str, Path]) -> dict[str, int]:
    """Token ids by their text; of those that look the same, the first."""
    tokenizer = Tokenizer.from_file(str(six["m1"] / "tokenizer.json"))
    return {tokenizer.decode([id]): id for id in reversed(range(tokenizer.get_vocab_size()))}


@pytest.fixture(scope="module")
def references(six: dict[str, Path], ids: dict[str, int]) -> dict[Asked, Reference]:
    """What each model answers to each prompt, undisturbed."""
    torch.set_num_threads(1)
    return asyncio.run(_references(six, ids))


async def _references(six: dict[str, Path], ids: dict[str, int]) -> dict[Asked, Reference]:
    found: dict[Asked, Reference] = {}
    for name, path in six.items():
        made = engine.open(str(path), "cpu")
        assert isinstance(made, TorchEngine)
        await made.wake()
        recorder = RecordingDecoder.of(made)
        for prompt in PROMPTS:
            recorder.steps.clear()
            answer = await collect(made, made.encode(prompt), greedy(LONGEST))
            logits = torch.cat(recorder.steps[-LONGEST:])
            shown = [ids[made.decode([token])] for token in answer.token_ids]
            found[name, prompt] = Reference(shown, logits)
        await made.close()
    return found


@dataclass
class Tally:
    """What the clients have seen."""

    answers: list[tuple[Asked, list[int]]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """Seconds in the queue and for wakes, as the server tells them."""
    left: int = 0
    sleeps: int = 0


class Client:
    def __init__(self, server: Server, openai: AsyncOpenAI, ids: dict[str, int], seed: str) -> None:
        self._server = server
        self._openai = openai
        self._numbers = random.Random(seed)
        self._ids = ids

    async def go_on(self, until: float, tally: Tally) -> None:
        """Any failure is one of the test."""
        while time.monotonic() < until:
            match self._numbers.randrange(40):
                case 0:
                    await self._put_to_sleep()
                    tally.sleeps += 1
                case 1 | 2 | 3 | 4:
                    await self._leave_early()
                    tally.left += 1
                case _:
                    await self._ask(tally)

    def _request(self) -> dict[str, Any]:
        return {
            "model": self._numbers.choice(MODELS),
            "prompt": self._numbers.choice(PROMPTS),
            "max_tokens": self._numbers.randint(1, LONGEST),
            "temperature": 0,
            "extra_body": {"ignore_eos": True},
        }

    async def _ask(self, tally: Tally) -> None:
        request = self._request()
        response = await self._openai.completions.with_raw_response.create(**request, logprobs=0)
        timing = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
        tally.waits.append((float(timing["queue"]) + float(timing["wake"])) / 1000)
        choice = response.parse().choices[0]
        assert choice.logprobs and choice.logprobs.tokens
        token_ids = [self._ids[token] for token in choice.logprobs.tokens]
        assert len(token_ids) == request["max_tokens"], "lost a token"
        tally.answers.append(((request["model"], request["prompt"]), token_ids))

    async def _leave_early(self) -> None:
        """While it waits for the model, or after a few tokens."""
        request = self._request() | {"stream": True, "max_tokens": 200}
        with suppress(TimeoutError):
            async with asyncio.timeout(self._numbers.choice([0.05, 0.3, None])):
                stream = await self._openai.completions.create(**request)
                for _ in range(4):
                    await anext(stream)
                await stream.close()

    async def _put_to_sleep(self) -> None:
        name, level = self._numbers.choice(MODELS), self._numbers.choice([1, 2])
        await asyncio.to_thread(
            lambda: self._server.http.post(f"/sleep?model={name}&level={level}").raise_for_status()
        )


async def load(server: Server, ids: dict[str, int], seconds: float, seed: int, tally: Tally) -> None:
    until = time.monotonic() + seconds
    async with server.async_openai(timeout=2 * MAX_WAIT) as openai, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            client = Client(server, openai, ids, f"{seed} {number}")
            group.create_task(client.go_on(until, tally))


def statuses(server: Server) -> list[dict[str, Any]]:
    return server.http.get("/api/status").json()["models"]  # type: ignore[no-any-return]


def held(server: Server) -> int:
    """Bytes of the server's own memory, with all models at level 2."""
    server.wait_until(lambda: all(m["in_flight"] == 0 for m in statuses(server)), "requests are left")
    server.http.post("/sleep?level=2").raise_for_status()
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


@dataclass(frozen=True)
class Soak:
    directory: Path
    six: dict[str, Path]
    ids: dict[str, int]
    references: dict[Asked, Reference]

    def run(self, rounds: int, seconds: float) -> None:
        """The first rounds warm up what is there for good."""
        tally, samples = Tally(), []
        with running(self.directory, config(self.six), OMP_NUM_THREADS="1") as server:
            for number in range(rounds):
                asyncio.run(load(server, self.ids, seconds, number, tally))
                samples.append(held(server))
            wakes = server.log.read_text().count("waking -> awake")
            assert server.http.get("/health").status_code == 200
        mib = [round(sample / MIB) for sample in samples]
        print(
            f"\n{len(tally.answers)} answers, {tally.left} left early, {tally.sleeps} sleeps by hand, "
            f"{wakes} wakes; wait p99 {quantiles(tally.waits, n=100)[98]:.2f} s, "
            f"longest {max(tally.waits):.2f} s; MiB held after each round: {mib}"
        )
        assert max(tally.waits) <= MAX_WAIT
        self.check(tally)
        assert samples[-1] <= max(samples[: max(1, rounds // 4)]) + SLACK, mib

    def check(self, tally: Tally) -> None:
        """Each answer is the beginning of its reference."""
        expected = []
        for asked, token_ids in tally.answers:
            whole, length = self.references[asked], len(token_ids)
            expected.append(Reference(whole.token_ids[:length], whole.logits[:length]))
        assert_same(expected, [token_ids for _, token_ids in tally.answers], "bfloat16")


@pytest.fixture
def soak(
    tmp_path: Path, six: dict[str, Path], ids: dict[str, int], references: dict[Asked, Reference]
) -> Soak:
    return Soak(tmp_path, six, ids, references)


def test_six_models_in_room_for_two(soak: Soak) -> None:
    soak.run(rounds=3, seconds=3)


@pytest.mark.soak
def test_six_models_in_room_for_two_for_long(soak: Soak) -> None:
    soak.run(rounds=40, seconds=30)
