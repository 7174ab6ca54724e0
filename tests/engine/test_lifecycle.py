"""Any order of what a gateway may do with an engine: the accounts are exact, and answers what they were."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine.engine import TorchEngine
from engine.types import ALL_TAGS, CheckpointError, EngineError, EngineOptions, GenerateRequest, Tag
from tests.engine.harness import collect, greedy, prompt, until

HALVES: list[frozenset[Tag]] = [frozenset({"weights"}), frozenset({"kv_cache"})]
operations = st.one_of(
    st.tuples(st.just("wake"), st.sampled_from([ALL_TAGS, ALL_TAGS, *HALVES])),
    st.tuples(st.just("wake from a broken disk"), st.none()),
    st.tuples(st.just("sleep"), st.sampled_from([1, 2])),
    st.tuples(st.just("ask"), st.integers(1, 3)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("trim"), st.none()),
    st.tuples(st.just("reload"), st.none()),
)


class Owner:
    """Does one thing after another with one engine, and knows what must come of it."""

    def __init__(self, one: TorchEngine) -> None:
        self.engine = one
        self.resident = self.kv_ready = False
        self.expected: list[list[int]] = []

    @property
    def awake(self) -> bool:
        return self.resident and self.kv_ready

    async def do(self, what: str, how: Any) -> None:
        await getattr(self, what.replace(" ", "_"))(how)
        self.check()

    def check(self) -> None:
        footprint = self.engine.footprint()
        assert (footprint.weights > 0) == self.resident
        assert self.kv_ready or footprint.kv == 0
        assert footprint.host_copy == (0 if self.kv_ready else footprint.weights)
        if self.engine._model:
            weights, kv = self.engine._model.arenas
            assert (weights.committed, kv.committed) == (footprint.weights, footprint.kv)

    async def wake(self, tags: frozenset[Tag]) -> None:
        report = await self.engine.wake(tags)
        assert (report.bytes > 0) == ("weights" in tags and not self.resident)
        self.resident |= "weights" in tags
        self.kv_ready |= "kv_cache" in tags

    async def wake_from_a_broken_disk(self, _: None) -> None:
        def preadv(*args: Any) -> int:
            raise OSError(errno.EIO, "Input/output error")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("engine.reader.os.preadv", preadv)
            if self.resident:
                await self.engine.wake()
                self.kv_ready = True
                return
            with pytest.raises(CheckpointError):
                await self.engine.wake()

    async def sleep(self, level: Any) -> None:
        await self.engine.sleep(level)
        self.kv_ready = False
        self.resident &= level == 1

    async def ask(self, count: int) -> None:
        asked = [collect(self.engine, prompt(30 * n + 3, seed=n), greedy(6)) for n in range(count)]
        if not self.awake:
            for one in asked:
                with pytest.raises(EngineError, match="not awake"):
                    await one
            return
        answers = [answer.token_ids for answer in await asyncio.gather(*asked)]
        assert answers == self.expected[:count]

    async def leave(self, after: int) -> None:
        if not self.awake:
            return
        request = GenerateRequest(prompt_ids=prompt(300), sampling=greedy(100))
        stream = self.engine.generate(request)
        for _ in range(after):
            await anext(stream)
        await stream.aclose()
        await until(lambda: not self.engine._stepper.has_work)

    async def trim(self, _: None) -> None:
        await self.engine.trim_kv()
        assert self.engine.footprint().kv == 0

    async def reload(self, _: None) -> None:
        if self.engine._model:
            await self.engine.reload_weights()


@given(doing=st.lists(operations, min_size=3, max_size=25))
@settings(max_examples=30)
def test_any_order(llama: Path, doing: list[tuple[str, Any]]) -> None:
    async def drive() -> None:
        opened = engine.open(str(llama), "cpu", EngineOptions())
        assert isinstance(opened, TorchEngine)
        owner = Owner(opened)
        owner.expected = expected
        try:
            for what, how in doing:
                await owner.do(what, how)
        finally:
            await opened.close()
        assert opened.footprint().device == 0

    if not expected:
        expected.extend(asyncio.run(three_answers(llama)))
    asyncio.run(drive())


expected: list[list[int]] = []


async def three_answers(directory: Path) -> list[list[int]]:
    opened = engine.open(str(directory), "cpu")
    assert isinstance(opened, TorchEngine)
    await opened.wake()
    answers = [await collect(opened, prompt(30 * n + 3, seed=n), greedy(6)) for n in range(3)]
    await opened.close()
    return [answer.token_ids for answer in answers]


def held_by_this_process() -> tuple[int, int]:
    """Open files, and bytes of address space."""
    status = Path("/proc/self/status").read_text()
    virtual = int(status.partition("VmSize:")[2].split()[0]) * 1024
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), virtual


async def test_nothing_is_left_of_closed_engines(llama: Path) -> None:
    """Neither mappings nor open files, however many come and go."""

    async def come_and_go() -> tuple[int, int]:
        opened = engine.open(str(llama), "cpu", EngineOptions(max_running=4096))
        assert isinstance(opened, TorchEngine)
        await opened.wake()
        await collect(opened, prompt(5), greedy(2))
        await opened.close()
        return held_by_this_process()

    await come_and_go()
    files, virtual = await come_and_go()
    for _ in range(5):
        files_now, virtual_now = await come_and_go()
    assert files_now <= files
    assert virtual_now - virtual < 200 * 2**20, "each engine reserves more than that"
