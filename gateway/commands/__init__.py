"""What the command's verbs do: one module a verb, each with ``run(args) -> exit code``.

``gateway.cli`` declares their arguments and imports the one that is asked for, so that no verb waits for
another's imports.
"""

from __future__ import annotations

from typing import Final

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C."""


class CommandError(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
