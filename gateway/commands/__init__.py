"""What the command's verbs do: one module a verb, each with ``run(args) -> exit code``.

``gateway.cli`` declares their arguments and imports the one that is asked for, so that no verb waits for
another's imports.
"""

from __future__ import annotations

from typing import Final

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C."""


class CommandError(Exception):
    """Ends the command with what it says on stderr, and with ``--json`` as an error object on stdout too."""

    def __init__(
        self,
        message: str,
        *,
        exit_code: int = 1,
        type: str = "command_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.told = {"message": message, "type": type, "param": param, "code": code}
        """OpenAI's error object: the gateway's own, if it is the gateway that refuses."""
