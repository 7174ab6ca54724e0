"""A Hugging Face checkpoint: its configuration, tokenizer files, and where each tensor lies in which file.

Reads headers and small files only, and imports no torch. Nothing that comes with a checkpoint is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.types import CheckpointError

T = TypeVar("T")

ITEM_SIZES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}

_HEADER_LIMIT = 100 * 2**20
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_FILE = re.compile(r"[^./\0][^/\0]*\.safetensors")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a file was when its weights were first read: enough to see that it is another one now."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    header: bytes
    """SHA-256 of the safetensors header."""

    @classmethod
    def of(cls, fd: int) -> Fingerprint:
        """Of the file that is open as ``fd``. Raises OSError, CheckpointError."""
        stat = os.fstat(fd)
        header = hashlib.sha256(_read_header(fd, stat.st_size)).digest()
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, header)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in a file. ``offset`` is absolute, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file."""

    path: Path
    fingerprint: Fingerprint
    tensors: dict[str, StoredTensor]


class Checkpoint:
    """The directory of a checkpoint. Small JSON files are read on opening, shards on ``read_shards``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        config = self.json("config.json")
        if config is None:
            raise CheckpointError(f"{directory}: no config.json", reason="the checkpoint has no config.json")
        self.config: dict[str, Any] = config
        self.generation_config: dict[str, Any] = self.json("generation_config.json") or {}
        self.tokenizer_config: dict[str, Any] = self.json("tokenizer_config.json") or {}

    @property
    def tokenizer_file(self) -> Path:
        path = self.directory / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{self.directory}: no tokenizer.json", reason="the checkpoint has no tokenizer.json"
            )
        return path

    def chat_template(self) -> str | None:
        """The default template: ``chat_template.jinja``, or in tokenizer_config.json a string or a list."""
        path = self.directory / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        legacy = self.json("chat_template.json") or {}
        template = self.tokenizer_config.get("chat_template") or legacy.get("chat_template")
        if isinstance(template, list):
            named = (
                entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"
            )
            template = next(named, {}).get("template")
        return template if isinstance(template, str) else None

    def special_tokens(self) -> dict[str, str]:
        """``bos_token`` and the like, as plain strings."""
        found: dict[str, str] = {}
        for source in (self.json("special_tokens_map.json") or {}, self.tokenizer_config):
            for name, value in source.items():
                text = value.get("content") if isinstance(value, dict) else value
                if name.endswith("_token") and isinstance(text, str):
                    found[name] = text
        return found

    def shard_paths(self) -> list[Path]:
        """The safetensors files, in order. Raises CheckpointError when one is missing."""
        index = self.json(_INDEX)
        names = [_SINGLE] if index is None else self._indexed(index)
        for name in names:
            if not (self.directory / name).is_file():
                raise CheckpointError(
                    f"{self.directory}: {name} is missing", reason=f"the checkpoint's file {name} is missing"
                )
        return [self.directory / name for name in names]

    def _indexed(self, index: dict[str, Any]) -> list[str]:
        """The files that the index names, all of them beside it."""
        files = index.get("weight_map")
        names = list(files.values()) if isinstance(files, dict) else []
        if not names or not all(isinstance(name, str) and _FILE.fullmatch(name) for name in names):
            raise CheckpointError(
                f"{self.directory / _INDEX}: no map to safetensors files beside it",
                reason=f"{_INDEX} does not name the checkpoint's safetensors files",
            )
        return sorted(set(names))

    def read_shards(self) -> list[Shard]:
        return [read_shard(path) for path in self.shard_paths()]

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in a small file; None when there is no such file."""
        return self._parsed(name, dict)

    def json_list(self, name: str) -> list[Any] | None:
        return self._parsed(name, list)

    def _parsed(self, name: str, kind: type[T]) -> T | None:
        path = self.directory / name
        try:
            content = _parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: {error}", reason=f"{name} cannot be read") from error
        if not isinstance(content, kind):
            what = "object" if kind is dict else "list"
            raise CheckpointError(f"{path}: not a JSON {what}", reason=f"{name} is not a JSON {what}")
        return content


def _parse_json(text: str | bytes) -> Any:
    """Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_shard(path: Path) -> Shard:
    """The header of one safetensors file, checked. Raises CheckpointError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fingerprint = Fingerprint.of(fd)
            header = _read_header(fd, fingerprint.size)
        finally:
            os.close(fd)
        tensors = _parse_header(header, fingerprint.size)
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}", reason=f"the checkpoint's file {path.name} cannot be read"
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"{path}: {error}", reason=f"the checkpoint's file {path.name} is damaged"
        ) from error
    return Shard(path, fingerprint, tensors)


def _read_header(fd: int, size: int) -> bytes:
    prefix = os.pread(fd, 8, 0)
    if len(prefix) < 8:
        raise ValueError("too short for a safetensors file")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(size - 8, _HEADER_LIMIT):
        raise ValueError(f"a header of {length} bytes does not fit")
    header = os.pread(fd, length, 8)
    if len(header) < length:
        raise ValueError("the header is cut short")
    return header


def _parse_header(header: bytes, size: int) -> dict[str, StoredTensor]:
    start = 8 + len(header)
    entries = _parse_json(header)
    if not isinstance(entries, dict):
        raise ValueError("the header is not a JSON object")
    tensors: dict[str, StoredTensor] = {}
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(entry["dtype"]), tuple(entry["shape"])
            begin, end = entry["data_offsets"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed entry for {name}") from error
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError(f"malformed entry for {name}")
        expected = math.prod(shape) * ITEM_SIZES.get(dtype, -1)
        if not begin <= end <= size - start or end - begin != expected:
            raise ValueError(f"{name} does not lie within the file")
        tensors[name] = StoredTensor(name, dtype, shape, start + begin, end - begin)
    return tensors
