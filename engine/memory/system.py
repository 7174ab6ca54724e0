"""How much RAM this process may still use, and claims on it that are not touched yet.

Linux never refuses anonymous memory, it kills. So whoever is about to touch a lot of it claims it here
first: that is where shortage shows. The limits are those of this cgroup and of all its parents, of either
version; file cache that the kernel would drop does not count as used. No torch in here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.types import MemoryState, OutOfMemory

_RESERVE_SHARE = 0.02
_RESERVE_LEAST, _RESERVE_MOST = 32 * 2**20, 256 * 2**20
_UNLIMITED = 1 << 60
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class _Cgroup:
    """The files of one cgroup version: limit, usage, and the reclaimable parts of memory.stat."""

    limit: str
    usage: str
    reclaimable: tuple[str, ...]


_V1 = _Cgroup("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Cgroup("memory.max", "memory.current", ("inactive_file", "active_file"))


class SystemMemory:
    """RAM as ``/proc`` and the cgroup file systems tell it; ``root`` stands in for / in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._claimed = 0
        self._before_claims = 0
        """What the process held before it touched any of what is claimed now."""

    def state(self) -> MemoryState:
        """What there is and what is left of it above the reserve, in bytes. Less than nothing: so much must
        be given back before the reserve is whole again."""
        meminfo = self._meminfo()
        total, available = meminfo["MemTotal"], meminfo["MemAvailable"]
        for directory, version in self._cgroups():
            try:
                limit = self._number(directory / version.limit)
                used = self._number(directory / version.usage) - self._reclaimable(directory, version)
            except OSError:
                continue  # not ours to read, or just being taken down
            if limit >= _UNLIMITED:
                continue
            total = min(total, limit)
            available = min(available, limit - used)
        return MemoryState(total=total, available=available - self.reserve(total), shared_with_host=True)

    @staticmethod
    def reserve(total: int) -> int:
        """What stays free for everything else that the process does."""
        return min(max(int(total * _RESERVE_SHARE), _RESERVE_LEAST), _RESERVE_MOST)

    @contextmanager
    def claim(self, size: int) -> Iterator[None]:
        """Hold ``size`` bytes while the body touches them. Raises OutOfMemory, having taken nothing."""
        with self._lock:
            held = self._held()
            if not self._claimed:
                self._before_claims = held
            # What is claimed and touched has left ``state`` already, and must not be taken off twice.
            touched = max(0, held - self._before_claims)
            available = max(0, self.state().available - max(0, self._claimed - touched))
            if size > available:
                raise OutOfMemory(size, available)
            self._claimed += size
        try:
            yield
        finally:
            with self._lock:
                self._claimed -= size
                self._before_claims += size

    def _held(self) -> int:
        """Anonymous memory of this process, bytes."""
        _, resident, shared, *_ = map(int, (self._lines("proc/self/statm") or ["0 0 0"])[0].split())
        return (resident - shared) * _PAGE

    def _meminfo(self) -> dict[str, int]:
        lines = (self._root / "proc/meminfo").read_text().splitlines()
        pairs = (line.split(":", 1) for line in lines)
        return {name: int(value.split()[0]) * 1024 for name, value in pairs}

    def _cgroups(self) -> Iterator[tuple[Path, _Cgroup]]:
        """This process's memory cgroups and their parents, as far up as they are visible."""
        paths = self._own_paths()
        for mount, mount_root, version in self._mounts():
            own = paths.get(version)
            if own is None:
                continue
            # What this mount does not show (a namespace, a container's part) has its own top for us.
            shown = Path(own).is_relative_to(mount_root) and ".." not in Path(own).parts
            directory = mount / Path(own).relative_to(mount_root) if shown else mount
            while True:
                if (directory / version.limit).exists():
                    yield directory, version
                if directory == mount:
                    break
                directory = directory.parent

    def _own_paths(self) -> dict[_Cgroup, str]:
        paths: dict[_Cgroup, str] = {}
        for line in self._lines("proc/self/cgroup"):
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                paths[_V1] = path
            elif not controllers:
                paths[_V2] = path
        return paths

    def _mounts(self) -> Iterator[tuple[Path, str, _Cgroup]]:
        """(mount point, its root within the cgroup tree, version) from mountinfo."""
        for line in self._lines("proc/self/mountinfo"):
            before, _, after = line.partition(" - ")
            fields, (kind, _, options) = before.split(), after.split(maxsplit=2)
            mount = self._root / fields[4].lstrip("/")
            if kind == "cgroup2":
                yield mount, fields[3], _V2
            elif kind == "cgroup" and "memory" in options.split(","):
                yield mount, fields[3], _V1

    def _reclaimable(self, directory: Path, version: _Cgroup) -> int:
        try:
            stat = (directory / "memory.stat").read_text()
        except OSError:
            return 0
        pairs = (line.split() for line in stat.splitlines())
        return sum(int(value) for name, value in pairs if name in version.reclaimable)

    def _lines(self, path: str) -> list[str]:
        try:
            return (self._root / path).read_text().splitlines()
        except OSError:
            return []

    @staticmethod
    def _number(path: Path) -> int:
        text = path.read_text().strip()
        return _UNLIMITED if text == "max" else int(text)


system = SystemMemory()
