"""Faults planted at every step of loading, waking, serving and sleeping, real engines behind a real fleet.

After each of them the model is awake, asleep, or failed with a cool-down; all memory is back, by the books
and by the kernel's; a neighbour that answers all the while says what it always says; and the next good
request is answered as ever.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from engine import EngineError, GenerateRequest, OutOfMemory, SamplingParams
from engine.engine import TorchEngine
from engine.memory.cpu import CpuArena
from engine.memory.system import SystemMemory
from engine.runner import Runner
from gateway.app import create_app
from gateway.config import Config, ModelConfig
from gateway.errors import ApiError, ModelWakeFailed
from gateway.fleet import Fleet, SchedulerTimers, State
from tests.bench.random_checkpoint import write_checkpoint
from tests.e2e.server import running
from tests.gateway.api.caller import Caller, until

Start = Literal["cold", 1, 2]
Damage = Callable[[Path], None]

PROMPT = [7, 11, 19, 23, 42]
FIRST_CHUNK = 1024
"""Tokens whose KV is in the chunk that a wake takes."""
SLACK = 9 * 2**20
"""Bytes that the allocator's free lists come and go by; the weights are twice as many."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The victim's of 18 MiB, and a neighbour's that answers in a moment."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("faults")
    victim = {"num_hidden_layers": 2, "vocab_size": 16384}
    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 4096}
    made = {
        "victim": write_checkpoint(root / "victim", "60m", seed=1, **victim),
        "neighbour": write_checkpoint(root / "neighbour", "60m", seed=2, **small),
    }
    asyncio.run(warm_up(made))
    return made


async def warm_up(checkpoints: dict[str, Path]) -> None:
    """What the process takes once, for good: kernels, threads, the allocator's first lists."""
    async with house(checkpoints, checkpoints["victim"]) as it:
        for name in ("victim", "neighbour"):
            await it.ask(name, [3 + index % 200 for index in range(1000)])
            await it.ask(name)


@pytest.fixture
def directory(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """The victim's checkpoint, which the test may damage."""
    return Path(shutil.copytree(checkpoints["victim"], tmp_path / "victim"))


def held() -> int:
    """Bytes of this process's own memory, as the kernel counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


@dataclass
class House:
    """A fleet of two: the victim of the fault, and its neighbour."""

    fleet: Fleet
    neighbours: list[list[int]] = field(default_factory=list)
    """What the neighbour has answered while it was watched."""

    def engine(self, name: str = "victim") -> TorchEngine:
        engine = self.fleet._models[name].engine
        assert isinstance(engine, TorchEngine)
        return engine

    @property
    def state(self) -> State:
        return self.fleet.status_of("victim").state

    async def ask(self, name: str = "victim", prompt: list[int] = PROMPT, tokens: int = 6) -> list[int]:
        sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        request = GenerateRequest(prompt_ids=prompt, sampling=sampling)
        answer: list[int] = []
        async with self.fleet.lease(name) as lease:
            async for deltas in lease.generate(request):
                answer += [token for delta in deltas for token in delta.token_ids]
        return answer

    @asynccontextmanager
    async def neighbour_answers(self) -> AsyncIterator[None]:
        """All the while, again and again, and always the same."""
        stop = False

        async def go_on() -> None:
            while not stop:
                self.neighbours.append(await self.ask("neighbour"))

        expected = await self.ask("neighbour")
        talking = asyncio.create_task(go_on())
        await until(lambda: len(self.neighbours) > 0)
        try:
            yield
        finally:
            stop = True
            await talking
        assert len(self.neighbours) > 1
        assert all(answer == expected for answer in self.neighbours)

    async def all_asleep(self) -> tuple[int, int]:
        """What the victim holds by the books, and what the process holds, when everything sleeps."""
        for name in ("victim", "neighbour"):
            await self.fleet.sleep(name, 2)
        status = self.fleet.status_of("victim")
        assert status.in_flight == status.host_bytes == status.kv_bytes == 0
        gc.collect()
        return status.device_bytes, held()


@asynccontextmanager
async def house(checkpoints: dict[str, Path], directory: Path, **victim: Any) -> AsyncIterator[House]:
    models = (
        ModelConfig(name="victim", path=str(directory), idle_timeout=3600.0, **victim),
        ModelConfig(name="neighbour", path=str(checkpoints["neighbour"]), idle_timeout=3600.0),
    )
    fleet = Fleet(Config(models=models), SchedulerTimers())
    await fleet.start()
    try:
        await fleet.opened("victim")
        yield House(fleet)
    finally:
        await fleet.close()


@asynccontextmanager
async def unharmed(
    checkpoints: dict[str, Path],
    directory: Path,
    start: Start = 2,
    *,
    prompt: list[int] = PROMPT,
    **victim: Any,
) -> AsyncIterator[House]:
    """The body plants a fault while the victim is in its ``start`` and the neighbour answers, and mends it.
    All must be as ever afterwards. ``prompt``: the longest that the body asks."""
    async with house(checkpoints, directory, **victim) as it:
        expected = None
        if start != "cold":
            await it.ask(prompt=prompt)
            expected = await it.ask()
        await it.ask("neighbour")
        booked, resident = await it.all_asleep()
        if start == 1:
            await it.fleet.wake("victim")
            await it.fleet.sleep("victim", 1)
        async with it.neighbour_answers():
            yield it
            answer = await it.ask()
        assert expected in (None, answer)
        booked_now, _ = await it.all_asleep()
        if start != "cold":
            assert booked_now == booked
        with suppress(TimeoutError):  # the worker gives back what malloc keeps when it has been quiet
            await until(lambda: held() <= resident + SLACK, patience=2.0)
        assert held() <= resident + SLACK, f"{(held() - resident) / 2**20:.0f} MiB are lost"
        assert await it.ask() == answer


async def assert_wake_fails(it: House, reason: str, level: int | None) -> None:
    """With the reason, for all who wait and for who comes while it cools down; nothing is kept."""
    waiting = await asyncio.gather(it.ask(), it.ask(), return_exceptions=True)
    for error in waiting:
        assert isinstance(error, ModelWakeFailed)
        assert reason in error.message
        assert "/victim" not in error.message, "the server's paths are not for clients"
    status = it.fleet.status_of("victim")
    assert (status.state, status.level) == (State.FAILED, level)
    assert status.last_error and reason in status.last_error
    with pytest.raises(ModelWakeFailed) as caught:
        await it.ask()
    assert caught.value.retry_after
    footprint = it.engine().footprint()
    assert footprint.kv == 0
    assert footprint.weights == footprint.host_copy
    assert bool(footprint.weights) == (level == 1)


# What happens to files


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def touch(path: Path) -> None:
    os.utime(path)


def replace(path: Path) -> None:
    """By a file of the very same bytes and times."""
    other = path.with_suffix(".new")
    shutil.copy2(path, other)
    other.replace(path)


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@contextmanager
def saved(directory: Path) -> Iterator[Path]:
    """A file of weights to be damaged; at the end it is what it was, to the inode."""
    path = sorted(directory.glob("*.safetensors"))[0]
    link, content, times = path.with_suffix(".saved"), path.read_bytes(), path.stat()
    os.link(path, link)
    yield path
    if path.is_dir():
        path.rmdir()
    link.write_bytes(content)
    os.utime(link, ns=(times.st_atime_ns, times.st_mtime_ns))
    link.replace(path)


@pytest.mark.parametrize(
    ("start", "damage", "reason"),
    [
        ("cold", remove, "missing"),
        ("cold", empty, "model-00001"),
        ("cold", become_a_directory, "model-00001"),
        (2, remove, "missing"),
        (2, truncate, "has changed"),
        (2, empty, "has changed"),
        (2, touch, "has changed"),
        (2, replace, "has changed"),
        (2, become_a_directory, "has changed"),
    ],
)
async def test_damaged_file(
    checkpoints: dict[str, Path], directory: Path, start: Start, damage: Damage, reason: str
) -> None:
    async with unharmed(checkpoints, directory, start) as it:
        with saved(directory) as path:
            damage(path)
            await assert_wake_fails(it, reason, None if start == "cold" else 2)
        await it.fleet.wake("victim")


async def test_light_sleeper_needs_no_file(checkpoints: dict[str, Path], directory: Path) -> None:
    async with unharmed(checkpoints, directory, 1) as it:
        with saved(directory) as path:
            remove(path)
            await it.ask()


# What happens while files are read


def on_read(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], number: int = 3) -> None:
    """Do ``act`` before the ``number``th piece is read."""
    real, calls = os.preadv, iter(range(1, 10**9))

    def preadv(*args: Any) -> int:
        if next(calls) == number:
            act()
        return real(*args)

    monkeypatch.setattr("engine.reader._PIECE", 2**20)
    monkeypatch.setattr("engine.reader.os.preadv", preadv)


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("start", "error", "reason"),
    [
        ("cold", OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (2, OSError(errno.ESTALE, "Stale file handle"), "Stale file handle"),
        (2, MemoryError(), "the engine failed"),
    ],
)
async def test_read_error(
    checkpoints: dict[str, Path],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: Start,
    error: Exception,
    reason: str,
) -> None:
    async with unharmed(checkpoints, directory, start) as it:
        with monkeypatch.context() as patch:
            on_read(patch, raises(error))
            await assert_wake_fails(it, reason, None if start == "cold" else 2)
        await it.fleet.wake("victim")


@pytest.mark.parametrize("damage", [truncate, empty, touch])
async def test_file_that_changes_while_it_is_read(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    async with unharmed(checkpoints, directory) as it:
        with saved(directory) as path, monkeypatch.context() as patch:
            on_read(patch, lambda: damage(path))
            await assert_wake_fails(it, "has changed", 2)
        await it.fleet.wake("victim")


# No memory


def scarce(monkeypatch: pytest.MonkeyPatch, refuse: Callable[[int], bool]) -> None:
    """No memory for a commit of so many bytes."""
    real = SystemMemory.claim

    def claim(self: SystemMemory, size: int) -> Any:
        if refuse(size):
            raise OutOfMemory(size, 0)
        return real(self, size)

    monkeypatch.setattr(SystemMemory, "claim", claim)


WEIGHTS = 8 * 2**20
"""Bytes; nothing but the victim's weights is committed in larger pieces."""


@pytest.mark.parametrize(
    ("start", "what"), [("cold", "weights"), ("cold", "kv"), (1, "kv"), (2, "weights"), (2, "kv")]
)
async def test_no_memory_for_a_wake(
    checkpoints: dict[str, Path],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: Start,
    what: str,
) -> None:
    async with unharmed(checkpoints, directory, start) as it:
        with monkeypatch.context() as patch:
            scarce(patch, lambda size: (size > WEIGHTS) == (what == "weights"))
            await assert_wake_fails(it, "not enough memory", None if start == "cold" else int(start))
        await it.fleet.wake("victim")


@pytest.mark.parametrize("what", ["weights", "kv"])
async def test_memory_that_is_missing_once_is_nobodys_business(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with unharmed(checkpoints, directory) as it:
        left = [1]

        def once(size: int) -> bool:
            return (size > WEIGHTS) == (what == "weights") and bool(left) and bool(left.pop())

        scarce(monkeypatch, once)
        await it.ask()
        assert not left


async def test_no_memory_for_more_kv(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [3 + index % 200 for index in range(2 * FIRST_CHUNK)]
    async with unharmed(checkpoints, directory, prompt=long) as it:
        await it.fleet.wake("victim")
        scarce(monkeypatch, lambda size: True)
        long_one = asyncio.create_task(it.ask(prompt=long))
        short_one = await it.ask()
        monkeypatch.undo()
        with suppress(EngineError):  # it may have waited until there was memory again
            await long_one
        assert short_one == await it.ask()
        assert it.state is State.AWAKE
        assert len(await it.ask(prompt=long)) == 6


@pytest.mark.parametrize("number", [1, 2])
async def test_no_address_range_for_a_first_wake(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async with unharmed(checkpoints, directory, "cold") as it:
        with monkeypatch.context() as patch:
            calls, make = iter(range(1, 100)), CpuArena.__init__

            def no_more(self: CpuArena, *args: Any, **named: Any) -> None:
                if next(calls) == number:
                    raise OSError(errno.ENOMEM, "Cannot allocate memory")
                make(self, *args, **named)

            patch.setattr(CpuArena, "__init__", no_more)
            await assert_wake_fails(it, "the engine failed", None)
        await it.fleet.wake("victim")


# Steps that fail


def break_steps(monkeypatch: pytest.MonkeyPatch, it: House, name: str, act: Callable[[], None]) -> None:
    """Do ``act`` in the victim's passes."""
    real = getattr(Runner, name)
    victim = it.engine()._model.kv  # type: ignore[union-attr]

    def step(self: Runner, *args: Any) -> Any:
        if self.kv is victim:
            act()
        return real(self, *args)

    monkeypatch.setattr(Runner, name, step)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("begin_prefill", RuntimeError("a bug")),
        ("advance", MemoryError()),
        ("advance", OutOfMemory(1, 0)),
        ("end_prefill", RuntimeError("a bug")),
        ("decode", RuntimeError("a bug")),
        ("decode", OutOfMemory(1, 0)),
    ],
)
async def test_step_that_dies(
    checkpoints: dict[str, Path],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
) -> None:
    async with unharmed(checkpoints, directory) as it:
        await it.fleet.wake("victim")
        with monkeypatch.context() as patch:
            break_steps(patch, it, step, raises(error))
            cut = asyncio.create_task(it.ask())
            await asyncio.sleep(0.05)  # a lack of memory is waited out as long as the neighbour holds some
            patch.undo()
            with suppress(EngineError):
                await cut
        assert it.state is State.AWAKE
        assert it.fleet.fault() is None


async def test_engine_that_breaks_down_is_named_and_alone(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(checkpoints, directory) as it:
        caller = Caller(create_app(it.fleet))
        await it.ask()
        async with it.neighbour_answers():
            with monkeypatch.context() as patch:
                patch.setattr(it.engine()._stepper, "_collect", raises(RuntimeError("a bug")))
                with pytest.raises(EngineError, match="broke down"):
                    await it.ask()
            with pytest.raises(EngineError, match="broke down"):
                await it.ask()
            reply = await caller.get("/health")
            assert reply.status == 503
            assert "'victim'" in reply.error["message"]
        await it.fleet.sleep("victim", 2)
        assert it.fleet.status_of("victim").device_bytes < 2**20


async def test_stuck_step_turns_health_red_and_names_the_model(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(checkpoints, directory) as it:
        caller = Caller(create_app(it.fleet))
        expected = await it.ask()
        entered, go_on = threading.Event(), threading.Event()

        def block() -> None:
            entered.set()
            go_on.wait(30)

        break_steps(monkeypatch, it, "decode", block)
        stuck = asyncio.create_task(it.ask())
        await until(entered.is_set)
        assert (await caller.get("/health")).status == 200, "not yet"
        clock = it.engine()._stepper.clock  # type: ignore[union-attr]
        assert clock._started_at is not None
        clock._started_at -= 61.0
        reply = await caller.get("/health")
        assert reply.status == 503
        assert "'victim'" in reply.error["message"]
        assert "61 s" in reply.error["message"]
        go_on.set()
        assert await stuck == expected
        assert (await caller.get("/health")).status == 200


# Clients that leave


async def gone(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_client_gone_while_queued(checkpoints: dict[str, Path], directory: Path) -> None:
    async with unharmed(checkpoints, directory, max_running=1) as it:
        runs = asyncio.create_task(it.ask(tokens=60))
        await until(lambda: it.fleet.status_of("victim").in_flight == 1 and it.state is State.AWAKE)
        waits = asyncio.create_task(it.ask())
        await until(lambda: it.fleet.status_of("victim").in_flight == 2)
        await gone(waits)
        assert it.fleet.status_of("victim").in_flight == 1
        assert len(await runs) == 60


@pytest.mark.parametrize("start", ["cold", 2])
async def test_client_gone_while_it_wakes(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    async with unharmed(checkpoints, directory, start) as it:
        entered, go_on = threading.Event(), threading.Event()

        def block() -> None:
            entered.set()
            go_on.wait(30)

        on_read(monkeypatch, block)
        asked = asyncio.create_task(it.ask())
        await until(entered.is_set)
        await gone(asked)
        assert it.fleet.status_of("victim").in_flight == 0
        go_on.set()
        await until(lambda: it.state is State.AWAKE)


@pytest.mark.parametrize("step", ["advance", "decode"])
async def test_client_gone_in_a_step(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with unharmed(checkpoints, directory) as it:
        await it.fleet.wake("victim")
        with monkeypatch.context() as patch:
            entered, go_on = threading.Event(), threading.Event()

            def block() -> None:
                entered.set()
                go_on.wait(30)

            break_steps(patch, it, step, block)
            asked = asyncio.create_task(it.ask(tokens=200))
            await until(entered.is_set)
            asked.cancel()
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await asked
        await until(lambda: it.fleet.status_of("victim").in_flight == 0)
        await until(lambda: it.engine()._model.kv.used_blocks == 0)  # type: ignore[union-attr]
        assert it.state is State.AWAKE


# Falling asleep


async def test_who_asked_for_the_sleep_may_leave(checkpoints: dict[str, Path], directory: Path) -> None:
    async with unharmed(checkpoints, directory) as it:
        running = asyncio.create_task(it.ask(tokens=60))
        await until(lambda: it.state is State.AWAKE and it.fleet.status_of("victim").queued == 0)
        sleeping = asyncio.create_task(it.fleet.sleep("victim", 2))
        await until(lambda: it.state is State.DRAINING)
        await gone(sleeping)
        assert len(await running) == 60
        await until(lambda: it.state is State.ASLEEP)
        assert it.fleet.status_of("victim").device_bytes == it.engine().footprint().residue


async def test_sleep_that_fails(
    checkpoints: dict[str, Path], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unharmed(checkpoints, directory) as it:
        await it.ask()
        with monkeypatch.context() as patch:
            patch.setattr(TorchEngine, "_release", lambda self, level: raises(RuntimeError("a bug"))())
            with pytest.raises(ApiError):
                await it.fleet.sleep("victim", 2)
        assert it.state is State.FAILED
        await it.fleet.wake("victim")
        assert it.state is State.AWAKE


# Through the real server


def test_server_whose_file_is_cut_short(
    checkpoints: dict[str, Path], directory: Path, tmp_path: Path
) -> None:
    """The error is clear, another model's stream goes on, and the right file is served again."""
    config = f"""
[models.victim]
path = "{directory}"
[models.neighbour]
path = "{checkpoints["neighbour"]}"
"""
    request = {"prompt": "Once", "max_tokens": 6, "temperature": 0}

    with running(tmp_path, config, OMP_NUM_THREADS="1") as server, server.openai() as client:

        def ask(model: str, **more: Any) -> str:
            return client.completions.create(model=model, **{**request, **more}).choices[0].text

        right, long = ask("victim"), {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
        undisturbed = ask("neighbour", **long)
        server.http.post("/sleep?model=victim&level=2").raise_for_status()
        stream = client.completions.create(model="neighbour", stream=True, **{**request, **long})
        text = next(stream).choices[0].text
        with saved(directory) as path:
            truncate(path)
            refused = server.http.post("/v1/completions", json={"model": "victim", **request})
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert refused.json()["error"]["code"] == "model_wake_failed"
            assert "has changed" in refused.json()["error"]["message"]
            assert server.status("victim")["device_bytes"] < 2**20
        text += "".join(chunk.choices[0].text for chunk in stream)
        assert text == undisturbed
        server.http.post("/wake_up?model=victim").raise_for_status()
        assert ask("victim") == right
