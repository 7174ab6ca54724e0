"""Steps that are queued before the tokens of the one before are known: the same answers, whatever happens to
any of them meanwhile."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.device import Device
from engine.engine import TorchEngine
from engine.lookahead import Lookahead
from engine.sequence import Sequence as Running
from engine.stepping import GenerationStepper
from engine.stream import DeltaStream
from engine.types import EngineOptions, GenerateRequest, SamplingParams
from tests.engine.checkpoints import make_checkpoint
from tests.engine.fake_device import install_device
from tests.engine.harness import FixedBudget, Stepper, greedy, limit_blocks, prompt
from tests.engine.late_device import LateGraphs, install
from tests.engine.memory.fake_driver import FakeDriver

PROMPTS = [prompt(length, seed=length) for length in (2, 15, 40, 1)]
DRAWN = SamplingParams(max_tokens=24, temperature=0.9, seed=7, ignore_eos=True)
KINDS = {
    "greedy": greedy(24),
    "a block's worth": greedy(17),
    "one": greedy(1),
    "two": greedy(2),
    "drawn": DRAWN,
    "from a nucleus": SamplingParams(max_tokens=20, temperature=1.2, top_p=0.8, top_k=30, seed=1),
    "penalties": greedy(20, repetition_penalty=1.3, frequency_penalty=0.5),
    "a bias": greedy(20, logit_bias={9: 3.0}),
    "log probabilities": greedy(20, logprobs=2),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("qwen3"), "qwen3", num_hidden_layers=2)


@pytest.fixture
def graphs() -> LateGraphs:
    return LateGraphs()


@pytest.fixture
def device(graphs: LateGraphs, monkeypatch: pytest.MonkeyPatch) -> Device:
    install(monkeypatch, graphs)
    return install_device(monkeypatch, FakeDriver(memory=256 * 2**20), graphs)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each step that was queued behind another, its rows."""
    found: list[int] = []
    real = Lookahead._queue_next

    def queue_next(self: Lookahead, *args: Any) -> None:
        real(self, *args)
        if self._queued:
            found.append(len(self._queued.scheduled))

    monkeypatch.setattr(Lookahead, "_queue_next", queue_next)
    return found


class Said:
    """What a CPU says alone, by prompt and kind: worked out when it is asked for, in a running loop."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._answers: dict[tuple[int, str], list[int]] = {}

    def __getitem__(self, asked: tuple[int, str]) -> list[int]:
        if asked not in self._answers:
            cpu = Stepper(self._model)
            self._answers[asked] = cpu.answer(PROMPTS[asked[0]], KINDS[asked[1]]).token_ids
            cpu.close()
        return self._answers[asked]


@pytest.fixture(scope="module")
def said(model: Path) -> Said:
    """The third token of the first prompt ends answers that may stop."""

    async def third() -> int:
        return Said(model)[0, "greedy"][2]

    stop = frozenset({asyncio.run(third())})
    KINDS["stops"] = greedy(24, stop_token_ids=stop)
    KINDS["not before"] = greedy(24, stop_token_ids=stop, min_tokens=9)
    return Said(model)


Asked = tuple[int, str]
Event = tuple[str, int]


class AtOnce(FixedBudget):
    """A chunk is computed in the step in which it is begun."""

    def seconds(self, decoding: int, prompts: int = 1) -> float:
        return math.inf


@dataclass
class Play:
    """A model of such a device, stepped by hand."""

    stepper: GenerationStepper
    engine: TorchEngine
    running: list[tuple[Asked, Running]] = field(default_factory=list)
    left: list[Running] = field(default_factory=list)

    @classmethod
    async def of(cls, model: Path, blocks: int | None = None) -> Play:
        engine = TorchEngine(str(model), "cuda", EngineOptions(max_running=4))
        await engine.load()
        assert isinstance(engine._stepper, GenerationStepper)
        await engine.wake()
        if blocks:
            limit_blocks(engine._stepper.model, blocks)
        engine._device.remove(engine._stepper)  # nobody else steps it
        return cls(engine._stepper, engine)

    def ask(self, asked: Asked, n: int = 1) -> None:
        request = GenerateRequest(prompt_ids=PROMPTS[asked[0]], sampling=KINDS[asked[1]], n=n)
        first = Running.of(request, self.engine._tokenizer, self.engine._eos, DeltaStream())
        self.running += [(asked, one) for one in (first, *first.followers)]
        self.stepper.submit(first)

    async def meet(self, event: Event) -> None:
        what, number = event
        staying = [one for _, one in self.running if one.finish_reason is None and not one.stream.aborted]
        if what == "ask":
            kinds = sorted(KINDS)
            asked = number % len(PROMPTS), kinds[number // len(PROMPTS) % len(kinds)]
            self.ask(asked, n=1 if KINDS[asked[1]].temperature else 1 + number % 2)
        elif what == "leave" and staying:
            leaving = staying[number % len(staying)].stream
            leaving.aborted = True
            self.left += [one for one in staying if one.stream is leaving]
        elif what == "read slowly" and staying:
            staying[number % len(staying)].stream._most = 0  # set aside, and back, and set aside
        elif what in ("suspend", "sleep"):
            self.stepper.suspend(keep_kv=number % 2 == 0)
            if what == "sleep":
                await self.engine.sleep(1 + number // 2 % 2)
                await self.engine.wake()
            self.stepper.resume(lambda: None)

    async def end(self, said: Said) -> None:
        """Everybody who has stayed gets the same answer as ever, and nothing is held any more."""
        for _, one in self.running:
            one.stream._most = 1024
        while self.stepper.has_work:
            self.stepper.step()
        kv = self.stepper.model.kv
        assert not kv.pool.held and kv._fault() is None
        for asked, one in self.running:
            if one not in self.left:
                assert one.finish_reason is not None
                assert one.token_ids[one.prompt_length :] == said[asked], asked
        await self.engine.close()


BLIND = {"greedy", "a block's worth", "drawn", "from a nucleus", "not before", "stops"}
"""Kinds of which a step can be queued without knowing the tokens before it."""


async def test_answers_of_all_kinds(model: Path, device: Device, said: Said, queued: list[int]) -> None:
    for kind in KINDS:
        play = await Play.of(model)
        for at in reversed(range(len(PROMPTS))):
            play.ask((at, kind))
        await play.end(said)
        assert bool(queued) == (kind in BLIND), kind
        queued.clear()


async def test_who_waits_for_a_place(model: Path, device: Device, said: Said) -> None:
    """Steps are queued while there is none, and one comes in behind whoever ends."""
    play = await Play.of(model)
    play.stepper.model.scheduler.budget = AtOnce(512)
    for kind in ("greedy", "stops", "drawn"):
        for at in range(len(PROMPTS)):
            play.ask((at, kind))
    await play.end(said)


async def test_who_is_set_aside_and_comes_back(
    model: Path, device: Device, said: Said, queued: list[int]
) -> None:
    """Others are computed meanwhile, and what was queued is not taken for what is needed then."""
    play = await Play.of(model)
    play.stepper.model.scheduler.budget = AtOnce(16)
    play.ask((0, "greedy"))
    for _ in range(4):
        play.stepper.step()
    assert queued
    play.running[0][1].stream._most = 0
    play.ask((2, "one"))
    play.stepper.step()
    await play.end(said)


events = st.tuples(
    st.sampled_from(["ask", "ask", "leave", "read slowly", "suspend", "sleep"]), st.integers(0, 2**10)
)


@given(
    script=st.lists(st.tuples(events, st.integers(0, 6)), min_size=1, max_size=10),
    blocks=st.none() | st.integers(5, 9),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_happens_meanwhile(
    model: Path,
    device: Device,
    said: Said,
    script: list[tuple[Event, int]],
    blocks: int | None,
) -> None:
    """Between some steps each: newcomers, with choices, those who leave, sleeps with and without their KV."""

    async def play() -> None:
        running = await Play.of(model, blocks)
        for event, steps in script:
            await running.meet(event)
            for _ in range(steps):
                if running.stepper.has_work:
                    running.stepper.step()
        await running.end(said)

    asyncio.run(play())


async def test_nothing_is_queued_while_others_wait(
    model: Path,
    device: Device,
    said: Said,
    queued: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = await Play.of(model)
    monkeypatch.setattr(play.stepper, "_others_wait", lambda: True)
    play.ask((0, "greedy"))
    await play.end(said)
    assert not queued


async def test_nothing_is_queued_through_a_suspension(
    model: Path, device: Device, said: Said, queued: list[int]
) -> None:
    """What it was computed with may be gone behind it."""
    play = await Play.of(model)
    play.ask((0, "greedy"))
    for _ in range(4):
        play.stepper.step()
    assert queued
    play.stepper.suspend(keep_kv=True)
    assert play.stepper._lookahead._queued is None
    play.stepper.resume(lambda: None)
    await play.end(said)


async def test_a_step_queued_is_used(
    model: Path, device: Device, said: Said, queued: list[int], graphs: LateGraphs
) -> None:
    """Nothing is computed twice, and nothing behind the last token."""
    play = await Play.of(model)
    play.ask((0, "greedy"))
    await play.end(said)
    assert len(queued) == 22
    assert graphs.replayed == 23


async def test_what_is_behind_a_stop_token_is_one_step(
    model: Path, device: Device, said: Said, graphs: LateGraphs
) -> None:
    play = await Play.of(model)
    play.ask((3, "stops"))
    await play.end(said)
    assert graphs.replayed == len(said[3, "stops"])
