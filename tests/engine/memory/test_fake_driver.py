"""The fake driver sees every misuse: without that, the tests over it would show nothing."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest

from engine.memory.driver import DriverError
from tests.engine.memory.fake_driver import GRANULARITY as G
from tests.engine.memory.fake_driver import FakeDriver, Misuse, address_of, plain_memory


class Scene:
    """A range of four pieces, of which the first is mapped and the second has memory; and locked memory."""

    def __init__(self) -> None:
        self.driver = FakeDriver()
        self.driver.make_current()
        self.base = self.driver.address_reserve(4 * G)
        self.mapped, self.loose = self.driver.mem_create(G), self.driver.mem_create(G)
        self.driver.mem_map(self.base, G, self.mapped)
        self.driver.mem_set_access(self.base, G)
        self.locked, self.plain = plain_memory(G), plain_memory(G)
        self.source = address_of(self.locked)
        self.driver.host_register(self.source, G)
        self.stream = self.driver.stream_create()

    def copy(self) -> None:
        self.driver.copy_to_device(self.base, self.source, G, self.stream)

    def copy_then(self, act: Callable[[], None]) -> None:
        self.copy()
        act()


MISUSES: dict[str, Callable[[Scene], object]] = {
    "reserve of a part of a page": lambda s: s.driver.address_reserve(G + 1),
    "free of a part": lambda s: s.driver.address_free(s.base, G),
    "free of what is mapped": lambda s: s.driver.address_free(s.base, 4 * G),
    "memory of a broken size": lambda s: s.driver.mem_create(G // 2),
    "no memory": lambda s: s.driver.mem_create(0),
    "release of an unknown handle": lambda s: s.driver.mem_release(1),
    "release of a mapped handle": lambda s: s.driver.mem_release(s.mapped),
    "map of unreserved addresses": lambda s: s.driver.mem_map(s.base + 4 * G, G, s.loose),
    "map over a mapping": lambda s: s.driver.mem_map(s.base, G, s.loose),
    "map of a mapped handle": lambda s: s.driver.mem_map(s.base + G, G, s.mapped),
    "map of an unknown handle": lambda s: s.driver.mem_map(s.base + G, G, 1),
    "map of a part of a handle": lambda s: s.driver.mem_map(s.base + G, G // 2, s.loose),
    "map at a broken address": lambda s: s.driver.mem_map(s.base + G + 4096, G, s.loose),
    "unmap of unmapped addresses": lambda s: s.driver.mem_unmap(s.base + G, G),
    "unmap of more than a mapping": lambda s: s.driver.mem_unmap(s.base, 2 * G),
    "access to more than is mapped": lambda s: s.driver.mem_set_access(s.base, 2 * G),
    "register of a part of a page": lambda s: s.driver.host_register(address_of(s.plain), 100),
    "register twice": lambda s: s.driver.host_register(s.source, G),
    "unregister of plain memory": lambda s: s.driver.host_unregister(address_of(s.plain)),
    "copy from plain memory": lambda s: s.driver.copy_to_device(s.base, address_of(s.plain), G, s.stream),
    "copy to unmapped addresses": lambda s: s.driver.copy_to_device(s.base + G, s.source, G, s.stream),
    "copy beyond what is mapped": lambda s: s.driver.copy_to_device(s.base + 1, s.source, G, s.stream),
    "copy on no stream": lambda s: s.driver.copy_to_device(s.base, s.source, G, 1),
    "unmap under a copy": lambda s: s.copy_then(lambda: s.driver.mem_unmap(s.base, G)),
    "unregister under a copy": lambda s: s.copy_then(lambda: s.driver.host_unregister(s.source)),
    "stream destroyed under a copy": lambda s: s.copy_then(lambda: s.driver.stream_destroy(s.stream)),
    "event of another life": lambda s: s.driver.event_synchronize(1),
    "no context": lambda s: (s.driver.lose_context(), s.driver.mem_get_info()),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_seen_and_kept(name: str) -> None:
    scene = Scene()
    with pytest.raises(Misuse):
        MISUSES[name](scene)
    with pytest.raises(AssertionError):
        scene.driver.assert_idle()
    assert len(scene.driver.misuses) == 1, "even if nobody looked at the error"


def test_copy_to_what_was_mapped_but_not_made_accessible() -> None:
    scene = Scene()
    scene.driver.mem_map(scene.base + G, G, scene.loose)
    with pytest.raises(Misuse, match="without access"):
        scene.driver.copy_to_device(scene.base + G, scene.source, G, scene.stream)


def test_a_context_is_that_of_a_thread() -> None:
    scene = Scene()
    seen: list[str] = []

    def call() -> None:
        with pytest.raises(Misuse, match="without a current context"):
            scene.driver.mem_get_info()
        scene.driver.make_current()
        seen.append(str(scene.driver.mem_get_info()))

    thread = Thread(target=call)
    thread.start()
    thread.join()
    assert len(seen) == 1


@pytest.mark.parametrize("lazy", [True, False])
def test_a_copy_happens_when_somebody_waits_or_at_once(lazy: bool) -> None:
    scene = Scene()
    driver = scene.driver
    driver.streams = type(driver.streams)(lazy=lazy)
    stream, event = driver.stream_create(), driver.event_create()
    target = driver.tensor(scene.base, G)
    scene.locked[:4] = b"abcd"
    driver.copy_to_device(scene.base, scene.source, 4, stream)
    driver.event_record(event, stream)
    scene.locked[:4] = b"wxyz"
    driver.copy_to_device(scene.base + 4, scene.source, 4, stream)
    assert bytes(target[:4].tolist()) != b"wxyz"
    driver.event_synchronize(event)
    assert bytes(target[:4].tolist()) == (b"wxyz" if lazy else b"abcd"), "the source had to stay as it was"
    driver.stream_synchronize(stream)
    assert bytes(target[4:8].tolist()) == b"wxyz"


def test_the_nth_call_of_a_name_fails() -> None:
    driver = FakeDriver()
    driver.make_current()
    driver.fail("mem_create", 2)
    driver.mem_create(G)
    with pytest.raises(DriverError, match="mem_create: CUDA_ERROR_INVALID_VALUE"):
        driver.mem_create(G)
    driver.mem_create(G)
    assert driver.used == 2 * G


def test_what_is_left_is_told() -> None:
    scene = Scene()
    with pytest.raises(AssertionError, match="address ranges are left"):
        scene.driver.assert_clean()
    with pytest.raises(AssertionError, match="mappings are left"):
        scene.driver.assert_idle()
