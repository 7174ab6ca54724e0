"""The list of models: OpenAI's, with what Dormouse knows beside it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from engine import Level


class ModelState(Struct, frozen=True, kw_only=True):
    value: str
    level: Level | None


class Model(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    status: ModelState
    aliases: list[str]
    max_model_len: int | None
    owned_by: str = "dormouse"
    root: str
    """The id, as in vLLM of a model without adapters."""


class ModelList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]
