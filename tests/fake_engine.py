"""An engine without a model: scripted sizes, durations and failures behind the seam's protocol.

Protocol misuse (generating while asleep, two transitions at once) raises AssertionError and is also kept in
``FakeBackend.misuse``, since whoever misused the engine may swallow the error. Tokens are UTF-8 bytes, and an
answer repeats the prompt after the model's greeting, so tests can tell whose answer to which prompt it is.
"""

from __future__ import annotations

import asyncio
import json
from array import array
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from engine import (
    ALL_TAGS,
    CheckpointError,
    Constraint,
    Delta,
    EngineError,
    EngineOptions,
    Estimate,
    Footprint,
    GenerateRequest,
    Grammar,
    Kind,
    Level,
    MemoryState,
    ModelInfo,
    OutOfMemory,
    Progress,
    RequestError,
    SamplingParams,
    Tag,
    TransitionReport,
)

MIB = 2**20
Step = Literal[
    "open",
    "estimate",
    "load",
    "wake",
    "sleep",
    "suspend",
    "resume",
    "generate",
    "embed",
    "trim_kv",
    "trim_copy",
    "reload_weights",
    "refill",
]
Sleeper = Callable[[float], Awaitable[None]]

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@dataclass(slots=True, kw_only=True)
class FakeSpec:
    """How a fake model behaves. Bytes and seconds."""

    weights: int = 100 * MIB
    first_kv: int = 10 * MIB
    residue: int = 1 * MIB
    load_seconds: float = 0.0
    wake_seconds: float = 0.0
    """From level 2 or cold; from level 1 a tenth of it."""
    sleep_seconds: float = 0.0
    token_seconds: float = 0.0
    prompt_seconds: float = 0.0
    """For the prompt of a request, and again for what was given up of it: before its next token."""
    reply: str = "Hello from {name}: "
    """As its files say when they are read: by a load, and by a reload."""
    max_model_len: int = 4096
    here: bool = True
    """Its files are on this machine before it is opened."""
    chat_template: str | None = CHAT_TEMPLATE
    special_tokens: dict[str, str] = field(default_factory=lambda: {"bos_token": "<s>", "eos_token": "</s>"})
    sampling_defaults: dict[str, float] = field(default_factory=dict)
    kind: Kind = "generate"
    embedding_size: int | None = None
    matryoshka: bool = False
    failures: dict[Step, list[Exception]] = field(default_factory=lambda: defaultdict(list))
    """To be raised by the next calls of a step, one each. A failing wake fails half-way, ``generate`` after
    its first token, ``refill`` half-way through a reload."""


class FakeBackend:
    """Stands in for the ``engine`` package. Paths are the names of the specs."""

    def __init__(
        self,
        specs: dict[str, FakeSpec] | None = None,
        *,
        total: int = 1000 * MIB,
        host_total: int = 10_000 * MIB,
        shared: bool = True,
        sleep: Sleeper = asyncio.sleep,
    ) -> None:
        self.specs = specs or {}
        self.total = total
        self.host_total = host_total
        self.shared = shared
        self.limits: dict[str, int] = {}
        self.host_limits: dict[str, int] = {}
        """Both told by ``limit_memory``, by device."""
        self.host_limit: int | None = None
        """Whoever told it."""
        self.foreign_host = 0
        """RAM beside the device that somebody else uses."""
        self.foreign = 0
        """Device memory that somebody else uses."""
        self.sleep = sleep
        self.engines: dict[str, FakeEngine] = {}
        self.misuse: list[str] = []

    def open(self, path: str, device: str = "auto", options: EngineOptions | None = None) -> FakeEngine:
        spec = self._spec(path)
        raise_next(spec, "open")
        assert path not in self.engines or self.engines[path].closed, f"{path} opened twice"
        self.engines[path] = FakeEngine(path, spec, self, options or EngineOptions())
        self.host_limit = self.engines[path].options.host_limit
        return self.engines[path]

    def estimate(
        self, path: str, options: EngineOptions | None = None, device: str = "cpu"
    ) -> Estimate | None:
        spec = self._spec(path)
        raise_next(spec, "estimate")
        return Estimate(
            weights_bytes=spec.weights,
            least_bytes=spec.weights + spec.first_kv + spec.residue,
            kv_bytes_per_token=1024,
            max_model_len=spec.max_model_len,
            architecture="FakeForCausalLM",
        )

    def max_model_len(self, path: str, options: EngineOptions | None = None) -> int | None:
        spec = self._spec(path)
        return spec.max_model_len if spec.here else None

    def memory_state(self, device: str = "cpu") -> MemoryState:
        used = sum(engine.footprint().device for engine in self.engines.values())
        copies = sum(engine.footprint().host_copy for engine in self.engines.values())
        if device == "cpu" and not self.shared:
            available = self.host_total - copies - self.foreign_host
            return MemoryState(total=self.host_total, available=available, shared_with_host=True)
        available = self.total - used - self.foreign
        return MemoryState(total=self.total, available=available, shared_with_host=self.shared)

    def limit_memory(self, device: str, limit: int, host_limit: int) -> None:
        self.limits[device] = limit
        self.host_limits[device] = self.host_limit = host_limit
        self.make_room_for_copy(0)

    def make_room_for_copy(self, size: int, *, spares: bool = True) -> bool:
        """Whether the host has it; ``spares``: once those who are awake have given their copies back."""
        spare = sorted([e for e in self.engines.values() if e.spare and spares], key=lambda e: e.woken)
        excess = size - self.memory_state("cpu").available
        if self.host_limit is not None:
            used = sum(engine.host_copy for engine in self.engines.values())
            excess = max(excess, used + size - self.host_limit)
        if size and excess > sum(engine.host_copy for engine in spare):
            return False
        for engine in spare:
            if excess > 0:
                excess -= engine.host_copy
                engine.host_copy = 0
        return True

    def _spec(self, path: str) -> FakeSpec:
        if path not in self.specs:
            raise CheckpointError(f"{path} is not there", reason="the model's files are not there")
        return self.specs[path]


@dataclass(frozen=True, slots=True)
class FakeGrammar:
    constraint: Constraint


class FakeEngine:
    def __init__(self, name: str, spec: FakeSpec, backend: FakeBackend, options: EngineOptions) -> None:
        self.name = name
        self.spec = spec
        self.options = options
        self.calls: list[str] = []
        self.running = 0
        self.closed = False
        self.fault_reason: str | None = None
        self.now_doing: Progress | None = None
        self.last_step_at: float | None = None
        self.kv = 0
        self.weights = 0
        self.host_copy = 0
        self.kept = 0
        """Of ``kv``: what a sleep leaves to those who are suspended."""
        self.given_up = 0
        """How often they have lost it."""
        self.tags: frozenset[Tag] = frozenset()
        self.woken = 0
        """The how manieth wake of all engines was its last."""
        self._copied = not options.copy_early
        """It was first read, or is not to be copied then."""
        self._backend = backend
        self._loaded = False
        self._reply = spec.reply
        self._stepping = asyncio.Event()
        self._stepping.set()
        self._went_on = asyncio.Event()
        self._went_on.set()
        self.moving: str | None = None

    @property
    def suspended(self) -> bool:
        return not self._stepping.is_set()

    @property
    def _serves(self) -> bool:
        return self.tags == ALL_TAGS and self.moving in (None, "trim_kv", "trim_copy")

    @property
    def spare(self) -> bool:
        """Whether it has a copy that others may take."""
        awake = bool(self.tags) and self.moving not in ("wake", "sleep")
        return bool(self.host_copy) and awake and not self._backend.shared

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            kind=self.spec.kind,
            architecture="FakeForCausalLM",
            dtype="float32",
            max_model_len=min(self.options.max_model_len or self.spec.max_model_len, self.spec.max_model_len),
            vocab_size=256,
            longest_token_bytes=1,
            chat_template=self.spec.chat_template,
            special_tokens=self.spec.special_tokens,
            sampling_defaults=self.spec.sampling_defaults,
            embedding_size=self.spec.embedding_size,
            matryoshka=self.spec.matryoshka,
        )

    def encode(self, text: str, *, add_special_tokens: bool = True, most: int | None = None) -> list[int]:
        return list(text.encode())[:most]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return bytes(token_ids).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])

    def token(self, token_id: int) -> str:
        return f"<{token_id:02X}>"

    def compile(self, constraint: Constraint) -> Grammar:
        """What is malformed is so to this engine, too: JSON that is none, or a parenthesis left open."""
        try:
            json.loads(constraint.value if constraint.kind == "json_schema" else "{}")  # type: ignore[arg-type]
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the constraint is malformed: {error}") from None
        value = constraint.value
        if constraint.kind in ("regex", "grammar") and value.count("(") != value.count(")"):
            raise RequestError("the constraint is malformed: a parenthesis is open")
        return FakeGrammar(constraint)

    async def load(self) -> None:
        async with self._transition("load"):
            if not self._loaded:
                await self._backend.sleep(self.spec.load_seconds)
                raise_next(self.spec, "load")
                self._loaded = True
                self._reply = self.spec.reply

    async def wake(self, tags: frozenset[Tag] = ALL_TAGS) -> TransitionReport:
        async with self._transition("wake"):
            self._insist(self._loaded, "wake before load")
            needed = self._needed(tags)
            seconds = self.spec.wake_seconds * (0.1 if self.weights or self.host_copy else 1.0)
            before = (self.weights, self.kv, self.host_copy)
            available = self._backend.memory_state("auto").available
            if needed > available:
                raise OutOfMemory(needed, available)
            self._fill(tags)
            self._copy_early()
            try:
                await self._backend.sleep(seconds)
                raise_next(self.spec, "wake")
            except BaseException:
                self.weights, self.kv, self.host_copy = before
                raise
            self.tags |= tags
            self._copied = True
            self.woken = 1 + max(engine.woken for engine in self._backend.engines.values())
            return TransitionReport(seconds=seconds, bytes=needed, phases={"commit": 0.0, "read": seconds})

    async def sleep(self, level: Level) -> TransitionReport:
        async with self._transition("sleep"):
            self._insist(self._loaded, "sleep before load")
            self._insist(self.suspended or not self.running, "sleep with a sequence running")
            await self._backend.sleep(self.spec.sleep_seconds)
            raise_next(self.spec, "sleep")
            before = self.footprint().device
            self.tags = frozenset()
            self.kv = self.kept
            if level == 2:
                self.weights = self.host_copy = 0
            elif self._backend.shared:
                self.host_copy = self.weights
            else:
                if not self.host_copy and self._backend.make_room_for_copy(self.spec.weights):
                    self.host_copy = self.spec.weights
                self.weights = 0
            freed = before - self.footprint().device
            return TransitionReport(seconds=self.spec.sleep_seconds, bytes=freed, phases={"release": 0.0})

    async def suspend(self, *, keep_kv: bool) -> None:
        async with self._transition("suspend"):
            raise_next(self.spec, "suspend")
            self._stepping.clear()
            keeps = keep_kv and self.running and self.spec.kind == "generate"
            self._keep(self.kv if keeps else 0)

    async def resume(self) -> None:
        async with self._transition("resume"):
            raise_next(self.spec, "resume")
            self._insist(self.tags == ALL_TAGS or not self.suspended, "resume while not awake")
            self.kept = 0
            if self.suspended:
                self._went_on.clear()
                self._stepping.set()
                if not self.running or self.spec.kind == "embed":
                    self._went_on.set()

    async def went_on(self) -> None:
        await self._went_on.wait()

    def _keep(self, kept: int) -> None:
        self.given_up += not kept
        self.kept = kept
        if "kv_cache" not in self.tags:
            self.kv = kept

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[list[Delta]]:
        self._insist(
            self.tags == ALL_TAGS and self.moving in (None, "trim_kv", "trim_copy"),
            "generate while not awake",
        )
        self.calls.append("generate")
        self.running += 1
        try:
            answer = self._reply.format(name=self.name) + self.decode(request.prompt_ids)
            async for delta in self._stream(answer, request.sampling):
                yield [replace(delta, index=index) for index in range(request.n)]
        finally:
            self.running -= 1
            if not self.running:
                self._keep(0)
                self._went_on.set()

    async def _stream(self, answer: str, sampling: SamplingParams) -> AsyncIterator[Delta]:
        stops = [answer.index(stop) for stop in sampling.stop if stop in answer]
        answer = answer[: min(stops, default=len(answer))]
        shown = answer[: sampling.max_tokens]
        computed: int | None = None
        for position, character in enumerate(shown):
            await self._backend.sleep(self.spec.token_seconds)
            while self.suspended or computed != self.given_up:
                await self._stepping.wait()
                if computed != self.given_up:
                    computed = self.given_up
                    await self._backend.sleep(self.spec.prompt_seconds)
            if self.closed:
                raise EngineError("the model was closed")
            self._insist(self.tags == ALL_TAGS, "a step on a sleeping model")
            self._went_on.set()
            last = position == len(shown) - 1
            reason: Literal["stop", "length"] = "stop" if len(shown) == len(answer) else "length"
            token_ids = tuple(character.encode())
            yield Delta(token_ids=token_ids, text=character, finish_reason=reason if last else None)
            raise_next(self.spec, "generate")
        if not shown:
            yield Delta(finish_reason="stop" if sampling.max_tokens else "length")

    async def embed(
        self, inputs: Sequence[Sequence[int]], dimensions: int | None = None
    ) -> list[array[float]]:
        """Of each input its first token's id, again and again."""
        self._insist(
            self.tags == ALL_TAGS and self.moving in (None, "trim_kv", "trim_copy"), "embed while not awake"
        )
        self.calls.append("embed")
        self.running += 1
        try:
            await self._backend.sleep(self.spec.token_seconds)
            while self.suspended:
                await self._stepping.wait()
            if self.closed:
                raise EngineError("the model was closed")
            self._insist(self.tags == ALL_TAGS, "a step on a sleeping model")
            raise_next(self.spec, "embed")
            return [array("f", [ids[0]] * (dimensions or self.spec.embedding_size or 0)) for ids in inputs]
        finally:
            self.running -= 1

    async def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")

    async def trim_kv(self) -> int:
        async with self._transition("trim_kv"):
            await self._backend.sleep(0)
            raise_next(self.spec, "trim_kv")
            in_use = self.spec.first_kv if self.running else 0
            kept = self.kept if self.suspended else in_use
            freed = max(0, self.kv - kept)
            self.kv -= freed
            return freed

    async def trim_copy(self) -> int:
        async with self._transition("trim_copy"):
            await self._backend.sleep(0)
            raise_next(self.spec, "trim_copy")
            freed = self.host_copy if self.tags and not self._backend.shared else 0
            self.host_copy -= freed
            return freed

    async def reload_weights(self) -> None:
        async with self._transition("reload_weights"):
            self._insist(self._loaded, "reload before load")
            self._insist(not self.running, "reload with a sequence running")
            raise_next(self.spec, "reload_weights")
            before = self.weights, self.host_copy
            if any(before):
                self.weights = self.host_copy = 0
                try:
                    await self._backend.sleep(self.spec.wake_seconds)
                    raise_next(self.spec, "refill")
                except BaseException:
                    self.tags, self.kv = frozenset(), self.kept
                    raise
                self.weights, self.host_copy = before
            self._reply = self.spec.reply

    def footprint(self) -> Footprint:
        return Footprint(
            weights=self.weights,
            kv=self.kv,
            kept=self.kept,
            host_copy=self.host_copy,
            residue=self.spec.residue if self._loaded else 0,
            to_wake=self._needed(ALL_TAGS),
        )

    def progress(self) -> Progress | None:
        return self.now_doing

    def fault(self) -> str | None:
        return self.fault_reason

    async def close(self) -> None:
        self.closed = True
        self.weights = self.kv = self.kept = self.host_copy = 0
        self._stepping.set()

    def _needed(self, tags: frozenset[Tag]) -> int:
        weights = self.spec.weights - self.weights if "weights" in tags - self.tags else 0
        kv = max(0, self.spec.first_kv - self.kv) if "kv_cache" in tags - self.tags else 0
        return weights + kv

    def _copy_early(self) -> None:
        backend, size = self._backend, self.spec.weights
        if self.weights and not (self._copied or backend.shared or self.host_copy):
            self.host_copy = size if backend.make_room_for_copy(size, spares=False) else 0

    def _fill(self, tags: frozenset[Tag]) -> None:
        if "weights" in tags:
            self.weights = self.spec.weights
            if self._backend.shared:
                self.host_copy = 0
        if "kv_cache" in tags:
            self.kv = max(self.kv, self.spec.first_kv)

    @asynccontextmanager
    async def _transition(self, name: str) -> AsyncIterator[None]:
        self._insist(not self.closed, f"{name} after close")
        self._insist(self.moving is None, f"{name} during {self.moving}")
        self.calls.append(name)
        self.moving = name
        try:
            yield
        finally:
            self.moving = None

    def _insist(self, right: bool, complaint: str) -> None:
        if not right:
            self._backend.misuse.append(f"{self.name}: {complaint}")
            raise AssertionError(complaint)


def raise_next(spec: FakeSpec, step: Step) -> None:
    if spec.failures.get(step):
        raise spec.failures[step].pop(0)
