"""A trace: who asked for which model and when. JSON lines, gzipped when the file's name ends in .gz."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec


class TraceError(ValueError):
    """A trace that cannot be replayed; the message names the line."""


class Request(msgspec.Struct, frozen=True, gc=False):
    at: float
    """Seconds from the beginning of the trace; never less than on the line before."""
    model: str
    prompt_tokens: int
    max_tokens: int
    """How many tokens the answer has."""


def read_trace(path: Path) -> Iterator[Request]:
    """Raises TraceError at the first line that is wrong."""
    decoder = msgspec.json.Decoder(Request)
    before = 0.0
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    request = decoder.decode(line)
                except msgspec.MsgspecError as error:
                    raise TraceError(f"{path}:{number}: {error}") from None
                if request.at < before:
                    raise TraceError(f"{path}:{number}: at: {request.at} is before {before}")
                if request.prompt_tokens < 1 or request.max_tokens < 1:
                    raise TraceError(f"{path}:{number}: expected a token or more of prompt and answer")
                before = request.at
                yield request
    except (OSError, EOFError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None


def write_trace(requests: Iterable[Request], out: BinaryIO) -> None:
    encoder = msgspec.json.Encoder()
    for request in requests:
        out.write(encoder.encode(request) + b"\n")


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
