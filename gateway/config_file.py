"""Reads config.toml, whose tables are ``gateway.config_tables``; the JSON schema is derived from them.

All that is wrong is one ``ConfigError``, a line for each mistake: ``FILE: key.path: what is wrong``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET

from gateway.config import Config, MemoryConfig, ModelConfig, ServerConfig, TurnConfig, name_mistakes
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
    """What is wrong with the configuration, for the operator: a line for each mistake."""


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
    mistakes: list[Mistake] = []
    config = None
    try:
        raw = expand_environment(read_toml(path), mistakes)
        if not mistakes:
            config = _config(raw, path.absolute().parent, mistakes)
    except Mistake as mistake:
        mistakes.append(mistake)
    if mistakes or config is None:
        raise ConfigError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return config


def json_schema() -> str:
    schema = msgspec.json.schema(File, schema_hook=_SCHEMAS.__getitem__)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2)


def _config(raw: dict[str, Any], base: Path, mistakes: list[Mistake]) -> Config:
    tables = raw.get("models", {})
    if not isinstance(tables, dict):
        raise Mistake("models", "expected a table for each model, as in [models.NAME]")
    file = _read(File, {**raw, "models": {}}, "", mistakes)
    models = []
    for name, table in tables.items():
        try:
            models.append(_model(name, table, file, base, mistakes))
        except Mistake as mistake:
            mistakes.append(mistake)
    mistakes += (Mistake(*mistake) for mistake in name_mistakes(models))
    return Config(
        server=ServerConfig(**file.server.given()),
        memory=MemoryConfig(**{key: parse_size(text) for key, text in file.memory.given().items()}),
        turns=TurnConfig(**{key: value for key, value in file.queue.given().items() if key in _TURN_KEYS}),
        models=tuple(models),
    )


def _model(name: str, raw: Any, file: File, base: Path, mistakes: list[Mistake]) -> ModelConfig:
    where = f"models.{name}"
    if not name.strip():
        raise Mistake("models", "a model's name must not be empty")
    table = _read(Model, raw, where, mistakes)
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


def _read(table: type[T], raw: Any, where: str, mistakes: list[Mistake]) -> T:
    """The table without what is wrong in it, which is told in ``mistakes``. Raises Mistake when nothing is
    left."""
    while True:
        try:
            return msgspec.convert(raw, table, dec_hook=_decode)
        except msgspec.ValidationError as error:
            mistake, keys = explain(error, table, where)
        if not keys:
            raise mistake
        mistakes.append(mistake)
        raw = _without(raw, keys)


def _without(raw: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    first, *rest = keys
    if rest:
        return {**raw, first: _without(raw[first], rest)}
    return {key: value for key, value in raw.items() if key != first}


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
