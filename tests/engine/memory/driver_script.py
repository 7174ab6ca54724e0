"""Run in a process of its own by test_driver.py, with the path of a made-up libcuda: every call once."""

from __future__ import annotations

import ctypes
import sys
import threading
import time

libcuda = ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)

from engine.memory.cuda_driver import CudaDriver  # noqa: E402 (the bindings then find it loaded)

driver = CudaDriver(3)
driver.make_current()
assert driver.allocation_granularity() == 2 * 2**20
address = driver.address_reserve(2**40)
handle = driver.mem_create(2**21)
driver.mem_map(address, 2**21, handle)
driver.mem_set_access(address, 2**21)
assert driver.mem_get_info() == (5 * 2**30, 80 * 2**30)
driver.host_register(0x7FFF00001000, 4096)
stream, event = driver.stream_create(), driver.event_create()
driver.copy_to_device(address, 0x7FFF00001000, 4096, stream)
driver.copy_to_host(0x7FFF00001000, address, 512, stream)
driver.event_record(event, stream)
driver.event_synchronize(event)

waiting = threading.Thread(target=driver.stream_synchronize, args=(stream,))
waiting.start()
turns = 0
while waiting.is_alive():
    turns += 1
    time.sleep(0.01)
assert turns > 3, "other threads stand still while this one waits for the device"

driver.event_destroy(event)
driver.stream_destroy(stream)
driver.host_unregister(0x7FFF00001000)
driver.mem_unmap(address, 2**21)
driver.mem_release(handle)
driver.address_free(address, 2**40)
print(ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(libcuda, "written"))).decode(), end="")

for code in (1, 2, 700, 12345):
    libcuda.fail_call(b"cuMemCreate", code)
    try:
        driver.mem_create(1)
    except Exception as error:
        print(type(error).__name__, error)
