"""What is typed in `dormouse chat`: lines with a history, or several of them between triple quotes."""

from __future__ import annotations

import os
import readline
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PROMPT: Final = ">>> "
MORE: Final = "... "
QUOTES: Final = '"""'
LONGEST: Final = 1000
"""Lines of the history."""


def history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "dormouse" / "chat_history"


@contextmanager
def history() -> Iterator[None]:
    """What is typed meanwhile is remembered for the next time; where that cannot be, just for this one."""
    file = history_file()
    with suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(LONGEST)
    try:
        yield
    finally:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            readline.write_history_file(file)


def questions() -> Iterator[str]:
    """Each that is typed, until Ctrl-D; Ctrl-C forgets the line."""
    while True:
        try:
            typed = _read()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\nCtrl-D or /exit leaves.")
            continue
        if typed:
            yield typed


def _read() -> str:
    line = input(PROMPT).strip()
    if not line.startswith(QUOTES):
        return line
    lines = [line.removeprefix(QUOTES)]
    while not lines[-1].rstrip().endswith(QUOTES):
        lines.append(input(MORE))
    lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
    return "\n".join(lines).strip()
