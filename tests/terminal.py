"""A command in a terminal, typed at and read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path

LINES, COLUMNS = 30, 100
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A pseudo-terminal. What is shown is text; colours and the like are left out, but kept in ``raw``."""

    def __init__(self, command: Path | str, *words: str, cwd: Path | None = None, **environment: str) -> None:
        self._control, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        inherited = {key: os.environ[key] for key in os.environ.keys() - {"COLUMNS", "LINES", "NO_COLOR"}}
        self._process = subprocess.Popen(
            [command, *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=_begin_session,
            cwd=cwd,
            env={**inherited, "TERM": "xterm-256color", **environment},
        )
        os.close(terminal)
        self.raw = ""
        self._read = 0
        """How much of what was shown has been expected."""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._control)

    @property
    def shown(self) -> str:
        return _ESCAPES.sub("", self.raw)

    def expect(self, text: str) -> str:
        """Read on until ``text`` has been shown, and return what was shown before it."""
        while (place := self.shown.find(text, self._read)) < 0:
            try:
                self.raw += os.read(self._control, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(
                    f"{text!r} was never shown after {self.shown[: self._read]!r}, "
                    f"but {self.shown[self._read :]!r}"
                ) from None
        before = self.shown[self._read : place]
        self._read = place + len(text)
        return before

    def type(self, keys: str) -> None:
        os.write(self._control, keys.encode())

    def exit_code(self) -> int:
        return self._process.wait(timeout=20)


def heed_ctrl_c() -> None:
    """Whoever runs the tests may ignore it, which is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _begin_session() -> None:
    """As a login does."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    heed_ctrl_c()
