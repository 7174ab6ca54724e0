"""Which process listens on a port, from ``/proc``; ``root`` stands in for / in tests."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_LISTENING: Final = "0A"
_INTERPRETER: Final = re.compile(r"(python|node|ruby|perl|bash|sh)[\d.]*")


def port_owner(port: int, root: Path = Path("/")) -> str | None:
    """Such as ``dormouse (pid 123)``; None when nobody listens, or it is not ours to know who."""
    inodes = set(_listening(port, root / "proc/net"))
    if not inodes:
        return None
    for process in sorted((root / "proc").glob("[0-9]*")):
        if inodes & set(_sockets(process)):
            return f"{_name(process)} (pid {process.name})"
    return None


def _listening(port: int, net: Path) -> Iterator[str]:
    """Inodes of the sockets, of either version of IP."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (net / table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                    yield rest[5]


def _sockets(process: Path) -> Iterator[str]:
    with suppress(OSError):  # another user's, or just gone
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                kind, _, inode = str(descriptor.readlink()).partition(":")
                if kind == "socket":
                    yield inode.strip("[]")


def _name(process: Path) -> str:
    """What people call it: of a script, not the interpreter's name."""
    with suppress(OSError):
        words = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        program, *arguments = words
        options = itertools.takewhile(lambda word: word.startswith("-") and word != "-c", arguments)
        script = next(iter(arguments[len(list(options)) :]), "-c")
        if _INTERPRETER.fullmatch(Path(program).name) and script != "-c":
            return Path(script).name
        if program:
            return Path(program).name
    return "a process"
