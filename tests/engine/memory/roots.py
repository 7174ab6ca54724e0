"""Made-up root directories: /proc and the cgroup file systems as far as the engine looks at them."""

from __future__ import annotations

from pathlib import Path

from engine.memory.system import SystemMemory

GIB = 2**30
NONE_V1 = 9223372036854771712
"""What version 1 says where there is no limit."""


def reserve(total: int) -> int:
    return SystemMemory.reserve(total)


class FakeRoot:
    """A root directory with as much of /proc and /sys/fs/cgroup as the code looks at."""

    def __init__(self, path: Path, *, total: int = 64 * GIB, available: int = 40 * GIB) -> None:
        self.path = path
        self._total = total
        self.available(available)
        self._mounts = ["21 1 0:19 / /proc rw,nosuid - proc proc rw"]

    def available(self, size: int) -> None:
        numbers = f"MemTotal: {self._total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {size // 1024} kB\n"
        self.write("proc/meminfo", numbers + "HugePages_Total: 0\n")

    def holds(self, size: int) -> None:
        """Anonymous memory of the process itself."""
        self.write("proc/self/statm", f"{2 * size // 4096} {size // 4096 + 100} 100 1 0 1 0\n")

    def write(self, path: str, text: str) -> None:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def mount(self, point: str, kind: str, root: str = "/", options: str = "rw") -> None:
        self._mounts.append(
            f"3{len(self._mounts)} 21 0:26 {root} {point} rw,nosuid shared:9 - {kind} {kind} {options}"
        )
        self.write("proc/self/mountinfo", "\n".join(self._mounts) + "\n")

    def v2(self, own: str, root: str = "/") -> None:
        self.write("proc/self/cgroup", f"0::{own}\n")
        self.mount("/sys/fs/cgroup", "cgroup2", root)

    def v1(self, own: str, root: str = "/") -> None:
        self.write("proc/self/cgroup", f"12:pids:{own}\n9:memory:{own}\n1:name=systemd:{own}\n0::/\n")
        self.mount("/sys/fs/cgroup/pids", "cgroup", root, "rw,pids")
        self.mount("/sys/fs/cgroup/memory", "cgroup", root, "rw,memory")

    def limit_v2(self, group: str, limit: int | str, usage: int, *, file: int = 0) -> None:
        base = f"sys/fs/cgroup/{group.strip('/')}/"
        self.write(base + "memory.max", f"{limit}\n")
        self.write(base + "memory.current", f"{usage}\n")
        self.write(
            base + "memory.stat",
            f"anon 1\nfile {file}\ninactive_file {file // 3}\nactive_file {file - file // 3}\n",
        )

    def limit_v1(self, group: str, limit: int, usage: int, *, file: int = 0) -> None:
        base = f"sys/fs/cgroup/memory/{group.strip('/')}/"
        self.write(base + "memory.limit_in_bytes", f"{limit}\n")
        self.write(base + "memory.usage_in_bytes", f"{usage}\n")
        own = "cache 5\ninactive_file 7\nactive_file 7\n"
        total = f"total_inactive_file {file // 3}\ntotal_active_file {file - file // 3}\n"
        self.write(base + "memory.stat", own + total)

    @property
    def memory(self) -> SystemMemory:
        return SystemMemory(self.path)

    def expect(self, total: int, available: int) -> None:
        state = self.memory.state()
        assert (state.total, state.available) == (total, available - reserve(total))
