"""What the process says on standard error: lines for people, or JSON for programs.

A record's ``fields`` (``logging``'s ``extra``) follow the message as ``key=value``, or are keys of their own.
Its ``details`` are keys only: the message says them already.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

import msgspec

from gateway.config import LogFormat

_WORD: Final = re.compile(r'[^\s"=]+')
"""Anything else is quoted, so that nobody takes a part of it for a field."""


def log_to_stderr(log_format: LogFormat) -> None:
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for ours in ("dormouse", "gateway", "engine"):
        logging.getLogger(ours).setLevel(logging.INFO)


class StderrHandler(logging.StreamHandler[TextIO]):
    """To what standard error is at the time: beneath a bar in a terminal it is not what it was at first."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        parts = (f"{key}={_short(value)}" for key, value in _fields(record).items())
        return " ".join((super().formatMessage(record), *parts))


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
            **getattr(record, "details", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    word = str(value)
    return word if _WORD.fullmatch(word) else msgspec.json.encode(word).decode()
