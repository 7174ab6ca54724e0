"""The configuration: its types and defaults. ``gateway.config_file`` reads them from TOML.

Durations are seconds (``math.inf``: never), sizes are bytes or a share of a whole that is known later.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from engine import DType, EngineOptions

Level = Literal["auto", 1, 2]
LogFormat = Literal["text", "json"]
ToolParser = Literal[
    "hermes",
    "qwen3_coder",
    "qwen3_xml",
    "seed_oss",
    "llama3_json",
    "llama4_json",
    "pythonic",
    "llama4_pythonic",
    "mistral",
    "mistral_args",
    "granite",
    "deepseek_v3",
    "deepseek_v31",
    "deepseek_v32",
    "deepseek_v4",
    "phi4_mini_json",
    "firefunction",
    "functionary",
    "nemotron_json",
    "apriel",
    "glm45",
    "openai",
]
"""vLLM's names, where it has the same, as in what follows."""
ReasoningParser = Literal[
    "none",
    "think",
    "deepseek_r1",
    "qwen3",
    "olmo3",
    "thinking",
    "mistral",
    "seed_oss",
    "cohere",
    "granite",
]


@dataclass(frozen=True, slots=True)
class Size:
    """``bytes``, or ``share`` of a whole (0 to 1); exactly one is set."""

    bytes: int | None = None
    share: float | None = None

    def of(self, whole: int) -> int:
        """In bytes, never more than the whole."""
        wanted = self.bytes if self.bytes is not None else int(whole * (self.share or 0.0))
        return min(wanted, whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    admin_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body: int = 32 * 2**20
    drain_timeout: float = 30.0
    stall_timeout: float = 60.0
    log_format: LogFormat = "text"
    watch_config: bool = False
    """Read the file again whenever it has changed, as after a SIGHUP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    device_limit: Size = Size(share=0.9)
    host_limit: Size = Size(share=0.7)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnConfig:
    """How models take turns when they do not fit together."""

    min_awake: float = 5.0
    turn: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model, with the sections' values already filled in where it does not override them."""

    name: str
    path: str
    """An absolute directory, or a hub id."""
    revision: str = "main"
    aliases: tuple[str, ...] = ()
    preload: bool = False
    pinned: bool = False
    idle_timeout: float = 300.0
    level: Level = "auto"
    deepen_after: float = 3600.0
    max_waiting: int = 256
    max_wait: float = 120.0
    dtype: DType = "auto"
    device: str = "auto"
    max_model_len: int | None = None
    max_running: int = 64
    prefix_cache: bool = True
    chat_template: str | None = None
    """The template's text, read from the file that the config names; None: the checkpoint's own."""
    tool_parser: ToolParser | None = None
    """How the model writes tool calls; None: as its template shows."""
    reasoning_parser: ReasoningParser | None = None
    """How it marks its reasoning; None: as its template shows."""
    sampling: dict[str, float] = field(default_factory=dict)

    def engine_options(self) -> EngineOptions:
        return EngineOptions(
            dtype=self.dtype,
            max_model_len=self.max_model_len,
            max_running=self.max_running,
            prefix_cache=self.prefix_cache,
            revision=self.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    server: ServerConfig = ServerConfig()
    memory: MemoryConfig = MemoryConfig()
    turns: TurnConfig = TurnConfig()
    models: tuple[ModelConfig, ...] = ()


NEVER = math.inf


def name_mistakes(models: Sequence[ModelConfig]) -> Iterator[tuple[str, str]]:
    """Key path and complaint about every name or alias that terminals and logs cannot show as it is, or that
    would stand for two models."""
    for model in models:
        for name in (model.name, *model.aliases):
            if not name.isprintable():
                where = f"models.{model.name}" + (".aliases" if name != model.name else "")
                yield where, f"{name!r} contains a character that cannot be shown; choose another name"
    owners: dict[str, str] = {}
    for model in models:
        if model.name in owners:
            yield f"models.{model.name}", "there are two models of this name"
        owners[model.name] = model.name
    for model in models:
        for alias in model.aliases:
            if alias in owners:
                taken = "the name of a model" if alias == owners[alias] else f"an alias of {owners[alias]}"
                yield f"models.{model.name}.aliases", f"{alias!r} is already {taken}; choose another"
            owners.setdefault(alias, model.name)
