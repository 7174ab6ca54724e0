"""Reads config.toml: the tables declare the file format, and the JSON schema is derived from them.

A key that the file leaves out stays unset here, so that each default is written once, in
``gateway.config``. Whatever is wrong is a ``ConfigError`` of one line: ``FILE: key.path: what is wrong``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from engine import DType
from gateway.config import (
    Config,
    Level,
    LogFormat,
    MemoryConfig,
    ModelConfig,
    ReasoningParser,
    ServerConfig,
    ToolParser,
    TurnConfig,
    name_clash,
)
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


class Duration(float):
    """Seconds."""


class Bytes(int):
    """An absolute size."""


class SizeText(str):
    """An absolute size or a percentage, known to be well-formed."""

    __slots__ = ()


class Device(str):
    __slots__ = ()


WATCH_HELP: Final = "read this file again whenever it has changed, as SIGHUP does"

Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]


class Table(Struct, forbid_unknown_fields=True):
    def given(self) -> dict[str, Any]:
        """What the file sets."""
        return {key: value for key, value in msgspec.structs.asdict(self).items() if value is not UNSET}


class Server(Table):
    host: Text | UnsetType = UNSET
    port: Port | UnsetType = UNSET
    api_keys: tuple[Text, ...] | UnsetType = UNSET
    admin_keys: tuple[Text, ...] | UnsetType = UNSET
    cors_origins: tuple[Text, ...] | UnsetType = UNSET
    max_body: Bytes | UnsetType = UNSET
    drain_timeout: Duration | UnsetType = UNSET
    stall_timeout: Duration | UnsetType = UNSET
    log_format: LogFormat | UnsetType = UNSET
    watch_config: Annotated[bool, Meta(description=WATCH_HELP)] | UnsetType = UNSET


class Sleep(Table):
    idle_timeout: Duration | UnsetType = UNSET
    level: Level | UnsetType = UNSET
    deepen_after: Duration | UnsetType = UNSET


class Memory(Table):
    device_limit: SizeText | UnsetType = UNSET
    host_limit: SizeText | UnsetType = UNSET


class Turns(Table):
    min_awake: Duration | UnsetType = UNSET
    turn: Duration | UnsetType = UNSET


class Queue(Turns):
    max_waiting: Count | UnsetType = UNSET
    max_wait: Duration | UnsetType = UNSET


class Sampling(Table):
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    min_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    repetition_penalty: Annotated[float, Meta(gt=0)] | UnsetType = UNSET


class Model(Sleep, kw_only=True):
    path: Text
    revision: Text | UnsetType = UNSET
    aliases: tuple[Text, ...] | UnsetType = UNSET
    preload: bool | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    max_waiting: Count | UnsetType = UNSET
    max_wait: Duration | UnsetType = UNSET
    dtype: DType | UnsetType = UNSET
    device: Device | UnsetType = UNSET
    max_model_len: Count | UnsetType = UNSET
    max_running: Count | UnsetType = UNSET
    prefix_cache: bool | UnsetType = UNSET
    chat_template: Text | UnsetType = UNSET
    tool_parser: ToolParser | UnsetType = UNSET
    reasoning_parser: ReasoningParser | UnsetType = UNSET
    sampling: Sampling = field(default_factory=Sampling)


class File(Table):
    server: Server = field(default_factory=Server)
    sleep: Sleep = field(default_factory=Sleep)
    memory: Memory = field(default_factory=Memory)
    queue: Queue = field(default_factory=Queue)
    models: dict[str, Model] = field(default_factory=dict)


T = TypeVar("T", bound=Table)

_DEVICE: Final = r"auto|cpu|cuda(:\d+)?"
_TURN_KEYS: Final = frozenset(Turns.__struct_fields__)
_SCHEMAS: Final[dict[type, dict[str, Any]]] = {
    Duration: {"type": ["string", "number"], "description": DURATION_HELP},
    Bytes: {"type": "string", "description": BYTES_HELP},
    SizeText: {"type": "string", "description": SIZE_HELP},
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
