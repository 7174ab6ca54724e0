"""Reading pieces of a file into buffers of whole pages, past the page cache where it does not hold the file.

O_DIRECT wants offsets, lengths and buffers that are aligned; so a little more is read than is asked for.
Where the file system does not have it, or the page cache has the file anyway, it is read through that.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_ALIGNMENT: Final = 4096
MARGIN: Final = 2 * _ALIGNMENT
"""What a buffer must be longer than what is read into it."""
_LOOKS: Final = 16


class DirectFile:
    """The file that is open as ``fd``, which stays the caller's. Thread-safe."""

    def __init__(self, path: Path, fd: int) -> None:
        self.fd = fd
        self.direct = None if _is_cached(fd) else _open_direct(path, fd)
        """A descriptor that reads past the page cache; None: through it."""

    def read(self, buffer: memoryview, offset: int, length: int) -> int:
        """Where in ``buffer``, which begins with a page, the ``length`` bytes at ``offset`` are then. Raises
        OSError, and EOFError where the file ends before."""
        if self.direct is not None:
            lead = offset % _ALIGNMENT
            try:
                _read(self.direct, buffer, offset - lead, lead + length, _ALIGNMENT)
                return lead
            except OSError as error:
                if error.errno != errno.EINVAL:  # opened so, but not to be read so
                    raise
        _read(self.fd, buffer[:length], offset, length, 1)
        return 0

    def close(self) -> None:
        if self.direct is not None:
            os.close(self.direct)
            self.direct = None


def _read(fd: int, buffer: memoryview, offset: int, least: int, alignment: int) -> None:
    """``least`` bytes, in whole units of ``alignment``; a short read goes on where it stopped."""
    done, whole = 0, -(-least // alignment) * alignment
    while done < least:
        reached = done + os.preadv(fd, [buffer[done:whole]], offset + done)
        if reached < least:
            reached -= reached % alignment
        if reached <= done:
            raise EOFError
        done = reached


def _is_cached(fd: int) -> bool:
    """Whether the page cache holds the file, as far as a few looks tell."""
    size = os.fstat(fd).st_size
    byte = bytearray(1)
    try:
        places = range(0, size, -(-size // _LOOKS) or 1)
        return all(os.preadv(fd, [byte], at, os.RWF_NOWAIT) for at in places)
    except OSError:  # not there at once, or not to be asked so
        return False


def _open_direct(path: Path, fd: int) -> int | None:
    try:
        direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        return None
    if os.path.samestat(os.fstat(direct), os.fstat(fd)):
        return direct
    os.close(direct)  # replaced meanwhile: the one that was checked is read
    return None
