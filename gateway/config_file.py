"""Reads config.toml, whose tables are ``gateway.config_tables``; the JSON schema is derived from them.

Whatever is wrong is a ``ConfigError`` of one line: ``FILE: key.path: what is wrong``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET

from gateway.config import Config, MemoryConfig, ModelConfig, ServerConfig, TurnConfig, name_clash
from gateway.config_tables import Bytes, Device, Duration, File, Model, SizeText, Table, Turns
from gateway.config_text import Mistake, expand_environment, explain, locate, read_toml
from gateway.units import (
    BYTES_HELP,
    DURATION_HELP,
    SIZE_HELP,
    parse_bytes,
    parse_duration,
    parse_size,
)


class ConfigError(Exception):
    """What is wrong with the configuration, in one line for the operator."""


T = TypeVar("T", bound=Table)

_DEVICE: Final = r"auto|cpu|cuda(:\d+)?"
_TURN_KEYS: Final = frozenset(Turns.__struct_fields__)
_SCHEMAS: Final[dict[type, dict[str, Any]]] = {
    Duration: {"type": ["string", "number"], "title": DURATION_HELP},
    Bytes: {"type": "string", "title": BYTES_HELP},
    SizeText: {"type": "string", "title": SIZE_HELP},
    Device: {"type": "string", "pattern": f"^({_DEVICE})$"},
}


def load_config(path: Path) -> Config:
    """The whole configuration, or a ConfigError."""
    try:
        return _config(expand_environment(read_toml(path)), path.absolute().parent)
    except Mistake as mistake:
        raise ConfigError(f"{path}: {mistake}") from None


def json_schema() -> str:
    schema = msgspec.json.schema(File, schema_hook=_SCHEMAS.__getitem__)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2)


def _config(raw: dict[str, Any], base: Path) -> Config:
    models = raw.get("models", {})
    if not isinstance(models, dict):
        raise Mistake("models", "expected a table for each model, as in [models.NAME]")
    file = _read(File, {**raw, "models": {}}, "")
    config = Config(
        server=ServerConfig(**file.server.given()),
        memory=MemoryConfig(**{key: parse_size(text) for key, text in file.memory.given().items()}),
        turns=TurnConfig(**{key: value for key, value in file.queue.given().items() if key in _TURN_KEYS}),
        models=tuple(_model(name, table, file, base) for name, table in models.items()),
    )
    if clash := name_clash(config.models):
        raise Mistake(*clash)
    return config


def _model(name: str, raw: Any, file: File, base: Path) -> ModelConfig:
    where = f"models.{name}"
    if not name.strip():
        raise Mistake("models", "a model's name must not be empty")
    table = _read(Model, raw, where)
    inherited = {key: value for key, value in file.queue.given().items() if key not in _TURN_KEYS}
    values = {**file.sleep.given(), **inherited, **table.given(), "sampling": table.sampling.given()}
    try:
        values["path"] = locate(table.path, base)
    except ValueError as error:
        raise Mistake(f"{where}.path", str(error)) from None
    if table.chat_template is not UNSET:
        values["chat_template"] = _template(base / table.chat_template, f"{where}.chat_template")
    return ModelConfig(name=name, **values)


def _template(path: Path, where: str) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Mistake(where, f"cannot read {path}: {reason}") from None


def _read(table: type[T], raw: Any, where: str) -> T:
    try:
        return msgspec.convert(raw, table, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise explain(error, table, where) from None


def _decode(kind: type, value: object) -> object:
    if kind is Duration:
        return Duration(parse_duration(value))
    if kind is Bytes:
        return Bytes(parse_bytes(value))
    if kind is SizeText:
        parse_size(value)
    elif not re.fullmatch(_DEVICE, str(value)):
        raise ValueError(f'expected "auto", "cpu", "cuda" or "cuda:N", got {value!r}')
    return kind(value)
