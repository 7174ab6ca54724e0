"""Checkpoints read onto a device, through a ring of buffers or a locked copy: the very bytes that the reader
into RAM gives, or an error and nothing under way. Any layout of the files, any size of the ring, any failure.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import copy_reader, direct
from engine.checkpoint import ITEM_SIZES, Shard, read_shard
from engine.copy_reader import CopyReader
from engine.direct import MARGIN
from engine.memory.cuda import CudaArena
from engine.memory.host import LockedMemory
from engine.memory.ring import Ring
from engine.memory.sizes import round_up
from engine.memory.transfer import commit_beside
from engine.reader import Reader, ShardReader, Slice
from engine.ring_reader import RingReader
from engine.types import CheckpointError, DeviceError, EngineError
from tests.engine.memory.fake_driver import GRANULARITY as G
from tests.engine.memory.fake_driver import FakeDriver

KINDS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
PAGE = 4096
PATIENCE = 10.0
"""Seconds that threads wait for each other."""


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@dataclass(frozen=True)
class Stored:
    dtype: str
    count: int
    gap: int = 0
    """Bytes of something else before it."""


def write_shard(path: Path, tensors: Sequence[Stored], pad: int = 0, seed: int = 0) -> Shard:
    """``pad``: how far the data are from where they would be aligned."""
    generator = torch.Generator().manual_seed(seed)
    header, data = {}, bytearray()
    for number, stored in enumerate(tensors):
        data += bytes([0xAB]) * stored.gap
        values = torch.randn(stored.count, generator=generator).to(KINDS[stored.dtype])
        begin = len(data)
        data += values.view(torch.uint8).numpy().tobytes()
        header[f"t{number}"] = {
            "dtype": stored.dtype,
            "shape": [stored.count],
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + pad)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return read_shard(path)


def lay_out(shards: Sequence[Shard], dtype: torch.dtype, order: Callable[[list[Any]], Any]) -> list[Slice]:
    """All tensors in an order of the caller's choice, each at a multiple of 256 bytes."""
    sources = [(index, tensor) for index, shard in enumerate(shards) for tensor in shard.tensors.values()]
    slices, target = [], 0
    for index, tensor in order(sources):
        slices.append(Slice(tensor, index, target))
        target += round_up(tensor.nbytes // ITEM_SIZES[tensor.dtype] * dtype.itemsize, 256)
    return slices


def expected(shards: Sequence[Shard], slices: Sequence[Slice], dtype: torch.dtype, size: int) -> torch.Tensor:
    """What the reader into RAM makes of it."""
    arena = torch.zeros(size, dtype=torch.uint8)
    Reader(arena).read(shards, slices, dtype)
    return arena


def matches(arena: torch.Tensor, right: torch.Tensor, slices: Sequence[Slice], dtype: torch.dtype) -> bool:
    """Wherever a tensor lies; what is between them is nobody's."""
    ends = [
        (s.target, s.target + s.source.nbytes // ITEM_SIZES[s.source.dtype] * dtype.itemsize) for s in slices
    ]
    return all(torch.equal(arena[a:b], right[a:b]) for a, b in ends)


class Scene:
    """An arena on a fake device, a ring, and a checkpoint of one or more files."""

    def __init__(
        self,
        shards: list[Shard],
        dtype: torch.dtype = torch.bfloat16,
        *,
        ring: tuple[int, int] = (2, 4 * PAGE),
        lazy: bool = True,
        order: Callable[[list[Any]], Any] = list,
        copying: bool = False,
    ) -> None:
        """``ring``: buffers, and bytes of each. ``copying``: through a copy instead."""
        self.driver = FakeDriver(lazy=lazy)
        self.shards, self.dtype = shards, dtype
        self.slices = lay_out(shards, dtype, order)
        size = max((s.target + 2 * s.source.nbytes for s in self.slices), default=1)
        self.arena = CudaArena(self.driver, size, make_tensor=self.driver.tensor, chunk=2 * G)
        self.ring = Ring(self.driver, *ring)
        self.copy = LockedMemory(self.driver, self.arena.size) if copying else None
        self.reader: ShardReader | None = None
        self.expected = expected(shards, self.slices, dtype, self.arena.size)

    def fill(self) -> None:
        """As a wake does it."""
        with commit_beside(self.arena, self.arena.size) as mapped:
            if self.copy is None:
                self.reader = RingReader(self.ring, self.arena.address, mapped)
            else:
                self.reader = CopyReader(self.driver, self.copy, self.arena, mapped)
            self.reader.read(self.shards, self.slices, self.dtype)
            mapped(self.arena.size)
            assert not list(self.driver.streams.pending())

    def assert_filled(self) -> None:
        assert matches(self.arena.tensor, self.expected, self.slices, self.dtype)
        assert self.copy is None or matches(self.copy.tensor, self.expected, self.slices, self.dtype)
        assert self.reader
        assert self.reader.done == sum(s.source.nbytes for s in self.slices)

    def assert_fails(self, error: type[Exception], match: str | None = None) -> Exception:
        with pytest.raises(error, match=match) as caught:
            self.fill()
        assert self.arena.committed == 0
        self.driver.assert_idle()
        return caught.value

    def close(self) -> None:
        self.driver.failing = lambda index, call: None
        self.arena.close()
        self.ring.close()
        if self.copy is not None:
            self.copy.close()
        self.driver.assert_clean()


@pytest.fixture(autouse=True, params=["direct", "cached"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_is_cached", lambda fd: request.param == "cached")
    monkeypatch.setattr(copy_reader, "_PIECE", 3 * PAGE)


def several(directory: Path) -> list[Shard]:
    """Two files, of all kinds, larger than a ring."""
    first = [Stored("BF16", 9000), Stored("BF16", 7), Stored("F32", 5000, gap=100), Stored("BF16", 40_000)]
    second = [Stored("F16", 3000, gap=2), Stored("BF16", 1), Stored("BF16", 20_000)]
    return [write_shard(directory / "1", first), write_shard(directory / "2", second, pad=3, seed=1)]


@pytest.mark.parametrize("copying", [False, True])
@pytest.mark.parametrize("dtype", KINDS.values())
def test_the_same_bytes_as_the_reader_into_ram(tmp_path: Path, dtype: torch.dtype, copying: bool) -> None:
    scene = Scene(several(tmp_path), dtype, order=lambda sources: reversed(sources), copying=copying)
    scene.fill()
    scene.assert_filled()
    scene.arena.release(0, scene.arena.size)
    scene.fill()
    scene.assert_filled()
    scene.close()


def test_no_memory_is_taken_but_the_ring(tmp_path: Path) -> None:
    """Every copy is from one of its buffers, and no more are used than it has."""
    scene = Scene(several(tmp_path), ring=(3, 4 * PAGE))
    (locked,) = scene.driver.registered.values()
    scene.fill()
    copies = [call for call in scene.driver.calls if call[0] == "copy_to_device"]
    assert len(copies) > 10
    assert {(source - locked.start) // (4 * PAGE) for _, _, source, _, _ in copies} <= {0, 1, 2}
    scene.close()


def test_reads_go_on_while_copies_are_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a device that copies only when it must, all buffers but the one that is read into wait for it."""
    scene = Scene([write_shard(tmp_path / "1", [Stored("BF16", 60_000)])], ring=(3, 4 * PAGE))
    real, waiting = os.preadv, []

    def preadv(*args: Any) -> int:
        waiting.append(len(list(scene.driver.streams.pending())))
        return real(*args)

    monkeypatch.setattr("engine.direct.os.preadv", preadv)
    monkeypatch.setattr("engine.memory.parallel.reader_threads", lambda: 1)
    scene.fill()
    assert max(waiting) == 2
    scene.close()


def test_every_byte_is_read_once_into_the_copy_and_sent_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene([write_shard(tmp_path / "1", [Stored("BF16", 70_000), Stored("BF16", 9)])], copying=True)
    real, read = os.preadv, list[int]()

    def preadv(*args: Any) -> int:
        read.append(real(*args))
        return read[-1]

    monkeypatch.setattr("engine.direct.os.preadv", preadv)
    scene.driver.calls.clear()
    scene.fill()
    assert 2 * 70_009 <= sum(read) < 2 * 70_009 + len(read) * MARGIN
    assert scene.copy
    offset = scene.copy.address - scene.arena.address
    copies = [call[1:4] for call in scene.driver.calls if call[0] == "copy_to_device"]
    assert {source - target for target, source, _ in copies} == {offset}
    assert sum(size for _, _, size in copies) == 2 * 70_009
    assert not {"event_record", "event_synchronize"} & set(scene.driver.names), "the ring is not used"
    scene.close()


@pytest.mark.parametrize("copying", [False, True])
def test_files_are_read_while_memory_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copying: bool
) -> None:
    """What comes first in the arena is on its way to the device before the last of it is mapped."""
    scene = Scene([write_shard(tmp_path / "1", [Stored("BF16", 5 * G // 2)] * 3)], copying=copying)
    sent, real = threading.Event(), FakeDriver.mem_create

    def mem_create(self: FakeDriver, size: int) -> int:
        assert not self.mappings or sent.wait(PATIENCE), "nothing is sent before all is mapped"
        return real(self, size)

    def copy_to_device(self: FakeDriver, *args: int) -> None:
        copy(self, *args)
        sent.set()

    copy = FakeDriver.copy_to_device
    monkeypatch.setattr(FakeDriver, "mem_create", mem_create)
    monkeypatch.setattr(FakeDriver, "copy_to_device", copy_to_device)
    scene.fill()
    scene.assert_filled()
    assert len(scene.driver.mappings) > 3
    scene.close()


def fail_read(monkeypatch: pytest.MonkeyPatch, number: int, error: Exception) -> None:
    real, calls = os.preadv, iter(range(10**9))

    def preadv(*args: Any) -> int:
        if next(calls) == number - 1:
            raise error
        return real(*args)

    monkeypatch.setattr("engine.direct.os.preadv", preadv)


@pytest.mark.parametrize("copying", [False, True])
@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize(
    ("error", "seen"),
    [(OSError(errno.EIO, "Input/output error"), CheckpointError), (MemoryError(), MemoryError)],
)
def test_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: Exception, seen: Any, copying: bool
) -> None:
    scene = Scene(several(tmp_path), copying=copying)
    with monkeypatch.context() as patch:
        fail_read(patch, number, error)
        failure = scene.assert_fails(seen)
    if isinstance(failure, CheckpointError):
        assert failure.reason in {f"reading {name} failed: Input/output error" for name in "12"}
        assert str(tmp_path) in str(failure)
    scene.fill()
    scene.assert_filled()
    scene.close()


def test_a_file_that_is_cut_short_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(several(tmp_path))
    real, calls = os.preadv, iter(range(10**9))

    def preadv(*args: Any) -> int:
        if next(calls) == 2:
            os.truncate(tmp_path / "1", 8192)
            os.truncate(tmp_path / "2", 8192)
        return real(*args)

    monkeypatch.setattr("engine.direct.os.preadv", preadv)
    scene.assert_fails(CheckpointError, "shorter than its header says|has changed since")
    scene.close()


def test_a_file_that_changed_before_or_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(several(tmp_path))
    real = RingReader._run

    def run(self: RingReader, work: Any) -> None:
        real(self, work)
        os.utime(tmp_path / "2")

    with monkeypatch.context() as patch:
        patch.setattr(RingReader, "_run", run)
        scene.assert_fails(CheckpointError, "has changed since")
    scene.assert_fails(CheckpointError, "has changed since")
    assert scene.reader and scene.reader.done == 0
    scene.close()


def test_descriptors_are_closed_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(several(tmp_path))
    before = open_files()
    scene.fill()
    scene.arena.release(0, scene.arena.size)
    fail_read(monkeypatch, 2, OSError(errno.EIO, "Input/output error"))
    scene.assert_fails(CheckpointError)
    assert open_files() == before
    scene.close()


def _shuffled(random: Any, sources: list[Any]) -> list[Any]:
    return random.sample(sources, len(sources))  # type: ignore[no-any-return]


STORED = st.builds(
    Stored, st.sampled_from(list(KINDS)), st.integers(0, 9000), st.sampled_from([0, 0, 1, 2, 300, 5000])
)
CALLS = [
    "copy_to_device", "event_record", "event_synchronize",
    "mem_map", "mem_create", "mem_set_access", "stream_create",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.tuples(st.lists(STORED, max_size=6), st.integers(0, 7)), min_size=1, max_size=3),
    dtype=st.sampled_from(list(KINDS.values())),
    ring=st.tuples(st.integers(1, 4), st.integers(3, 8).map(lambda pages: pages * PAGE)),
    lazy=st.booleans(),
    random=st.randoms(use_true_random=False),
    failing=st.none() | st.tuples(st.sampled_from(CALLS), st.integers(1, 12)),
    copying=st.booleans(),
)
def test_any_files_any_ring_any_failure(
    files: list[tuple[list[Stored], int]],
    dtype: torch.dtype,
    ring: tuple[int, int],
    lazy: bool,
    random: Any,
    failing: tuple[str, int] | None,
    copying: bool,
) -> None:
    with TemporaryDirectory() as name:
        shards = [
            write_shard(Path(name, str(number)), stored, pad, seed=number)
            for number, (stored, pad) in enumerate(files)
        ]
        shuffled = partial(_shuffled, random)
        scene = Scene(shards, dtype, ring=ring, lazy=lazy, order=shuffled, copying=copying)
        if failing:
            scene.driver.fail(*failing)
        try:
            scene.fill()
        except EngineError:
            assert failing
            scene.driver.assert_idle()
            scene.driver.failing = lambda index, call: None
            scene.fill()
        scene.assert_filled()
        scene.close()


def test_a_device_that_breaks_is_told_so(tmp_path: Path) -> None:
    scene = Scene(several(tmp_path))
    scene.driver.fail("copy_to_device", 3, "CUDA_ERROR_ECC_UNCORRECTABLE")
    scene.assert_fails(DeviceError, "ECC")
    scene.close()
