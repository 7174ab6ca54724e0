"""The driver's calls through the real bindings, and what becomes of their errors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.memory.cuda_driver import CudaDriver, cuda_driver, cuda_ordinal, device_name
from engine.memory.driver import DriverError, driver_error
from engine.types import DeviceError, EngineError

HERE = Path(__file__).parent

EXPECTED = """\
cuInit 0
cuDeviceGet 3
cuDevicePrimaryCtxRetain 103
cuCtxSetCurrent 0xc0
cuMemGetAllocationGranularity 1 0 1:3 0
cuMemAddressReserve 1099511627776 0 0 0
cuMemCreate 2097152 1 0 1:3 0
cuMemMap 7f0000000000 2097152 0 ffffffffffffff01 0
cuMemSetAccess 7f0000000000 2097152 1:3 3 1
cuMemGetInfo -
cuMemHostRegister 0x7fff00001000 4096 1
cuStreamCreate 1
cuEventCreate 3
cuMemcpyHtoDAsync 7f0000000000 0x7fff00001000 4096 0x51
cuMemcpyDtoHAsync 0x7fff00001000 7f0000000000 512 0x51
cuEventRecord 0xe1 0x51
cuEventSynchronize 0xe1
cuStreamSynchronize 0x51
cuEventDestroy 0xe1
cuStreamDestroy 0x51
cuMemHostUnregister 0x7fff00001000
cuMemUnmap 7f0000000000 2097152
cuMemRelease ffffffffffffff01
cuMemAddressFree 7f0000000000 1099511627776
DriverError cuMemCreate: CUDA_ERROR_INVALID_VALUE
DriverError cuMemCreate: CUDA_ERROR_OUT_OF_MEMORY
DeviceError cuMemCreate: CUDA_ERROR_ILLEGAL_ADDRESS
DeviceError cuMemCreate: an error that is newer than the bindings
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_bindings_hand_every_argument_to_the_driver(tmp_path: Path) -> None:
    library = tmp_path / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-O0", "-Wall", "-Werror", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["cc", *flags, "-o", library, HERE / "libcuda.c", "-ldl"], check=True)
    script = [sys.executable, "-m", "tests.engine.memory.driver_script", str(library)]
    ran = subprocess.run(script, cwd=HERE.parents[2], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    assert ran.stdout == EXPECTED


def install(monkeypatch: pytest.MonkeyPatch, bindings: Any) -> None:
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=None))
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=bindings))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", bindings)


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    with pytest.raises(EngineError, match="no cuda-bindings here"):
        CudaDriver()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> None:
        raise RuntimeError("libcuda.so.1 is not found")

    install(monkeypatch, SimpleNamespace(cuInit=refuse))
    with pytest.raises(EngineError, match=r"no CUDA driver here: libcuda.so.1 is not found"):
        CudaDriver()


def test_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Result(int):
        name = "CUDA_ERROR_NO_DEVICE"

    install(monkeypatch, SimpleNamespace(cuInit=lambda flags: (Result(100),)))
    with pytest.raises(DriverError, match="cuInit: CUDA_ERROR_NO_DEVICE"):
        CudaDriver()


def test_what_is_only_full_is_told_from_what_is_wrong_and_what_is_broken() -> None:
    full = driver_error("mem_create", "CUDA_ERROR_OUT_OF_MEMORY")
    wrong = driver_error("mem_create", "CUDA_ERROR_INVALID_VALUE")
    broken = driver_error("mem_create", "CUDA_ERROR_ILLEGAL_ADDRESS")
    assert isinstance(full, DriverError) and full.out_of_memory
    assert isinstance(wrong, DriverError) and not wrong.out_of_memory
    assert isinstance(broken, DeviceError)


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [
        ("cuda", 0),
        ("cuda:0", 0),
        ("cuda:13", 13),
        ("cpu", None),
        ("auto", None),
        ("cuda:", 0),
        ("cuda:x", None),
    ],
)
def test_names_of_devices(name: str, ordinal: int | None) -> None:
    assert cuda_ordinal(name) == ordinal


def test_a_device_that_is_not_there_is_named_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"no such device here: cuda:3 \(no cuda-bindings here: .*\)"):
            cuda_driver("cuda:3")


@pytest.fixture
def fresh_names() -> Iterator[None]:
    """What was found here before is looked for anew, and again after the test."""
    for found in (device_name, cuda_driver):
        found.cache_clear()
    yield
    for found in (device_name, cuda_driver):
        found.cache_clear()


@pytest.mark.usefixtures("fresh_names")
def test_names_are_of_devices_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "engine.memory.cuda_driver.CudaDriver", lambda ordinal: {0: "first", 1: "second"}[ordinal]
    )
    assert [device_name(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:0", "cuda:0", "cuda:1", "cpu"
    ]  # fmt: skip
    with pytest.raises(EngineError, match="no such device here: tpu"):
        device_name("tpu")


@pytest.mark.usefixtures("fresh_names")
def test_without_a_cuda_device_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    assert device_name("auto") == "cpu"
    with pytest.raises(EngineError, match="no such device here: cuda"):
        device_name("cuda")
