"""Pieces of files, past the page cache or through it: always the bytes that were asked for."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import direct
from engine.direct import MARGIN, DirectFile

SIZE = 5 * 4096 + 1234
CONTENT = bytes((7 * at + at // 256) % 256 for at in range(SIZE))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_is_cached", lambda fd: False)


@pytest.fixture(params=["direct", "through the page cache"])
def file(
    path: Path, fd: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DirectFile]:
    monkeypatch.setattr(direct, "_is_cached", lambda fd: request.param != "direct")
    file = DirectFile(path, fd)
    if request.param == "direct" and file.direct is None:
        pytest.skip("this file system has no O_DIRECT")
    yield file
    file.close()


def read(file: DirectFile, offset: int, length: int) -> bytes:
    buffer = memoryview(mmap.mmap(-1, max(1, length) + MARGIN))
    start = file.read(buffer, offset, length)
    return bytes(buffer[start : start + length])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(ends=st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), shorts=st.lists(st.integers(1, 9000)))
def test_any_piece(file: DirectFile, ends: tuple[int, int], shorts: list[int]) -> None:
    """However short the reads come up: direct ones by whole blocks."""
    start, stop = sorted(ends)
    real, left = os.preadv, iter(shorts)

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        most = next(left, SIZE)
        if fd == file.direct:
            most = max(4096, most // 512 * 512)
        return real(fd, [buffers[0][:most]], offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.direct.os.preadv", preadv)
        found = read(file, start, stop - start)
    # Told in a few numbers: a comparison of so many bytes that are not the same takes minutes.
    wrong = [at for at, byte in enumerate(CONTENT[start:stop]) if byte != found[at]]
    assert not wrong, (len(wrong), wrong[:1], found[wrong[0]], start, stop, shorts, file.direct)


@pytest.mark.parametrize(("offset", "length"), [(0, SIZE + 1), (SIZE, 1), (SIZE + 9000, 5), (SIZE - 5, 6)])
def test_a_file_that_ends_before(file: DirectFile, offset: int, length: int) -> None:
    with pytest.raises(EOFError):
        read(file, offset, length)


def test_an_error_is_an_error(file: DirectFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*args: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("engine.direct.os.preadv", preadv)
    with pytest.raises(OSError, match="Input/output error"):
        read(file, 0, 100)


def refuse_direct_reads(monkeypatch: pytest.MonkeyPatch, file: DirectFile) -> None:
    real = os.preadv

    def preadv(fd: int, *args: Any) -> int:
        if fd == file.direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, *args)

    monkeypatch.setattr("engine.direct.os.preadv", preadv)


def test_a_file_system_that_takes_the_flag_and_not_the_read(
    file: DirectFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_direct_reads(monkeypatch, file)
    assert read(file, 5000, 3000) == CONTENT[5000:8000]


@pytest.mark.usefixtures("uncached")
def test_a_file_system_without_it(path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Path, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags)

    monkeypatch.setattr("engine.direct.os.open", refuse)
    file = DirectFile(path, fd)
    assert file.direct is None
    assert read(file, 1, 5000) == CONTENT[1:5001]


@pytest.mark.usefixtures("uncached")
def test_a_file_that_was_replaced_is_still_the_one_that_is_open(path: Path, fd: int) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(bytes(SIZE))
    other.replace(path)
    before = open_files()
    file = DirectFile(path, fd)
    assert file.direct is None
    assert open_files() == before
    assert read(file, 1, 5000) == CONTENT[1:5001]


def test_what_the_page_cache_holds_is_read_from_there(path: Path, fd: int) -> None:
    path.read_bytes()
    if not direct._is_cached(fd):
        pytest.skip("this file system does not tell")
    assert DirectFile(path, fd).direct is None


def test_one_look_that_would_wait_is_enough(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = os.preadv, []

    def preadv(fd: int, buffers: Any, offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        looks.append(offset)
        if offset > SIZE // 2:
            raise BlockingIOError
        return real(fd, buffers, offset)

    monkeypatch.setattr("engine.direct.os.preadv", preadv)
    assert not direct._is_cached(fd)
    assert len(looks) > 4


def test_closing(path: Path, fd: int) -> None:
    before = open_files()
    for _ in range(3):
        file = DirectFile(path, fd)
        file.close()
        file.close()
    assert open_files() == before
