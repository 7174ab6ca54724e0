"""Conditions, as the alternatives that they leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.schema import Schema


def either(condition: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``if``."""
    then, otherwise = schema.get("then", True), schema.get("else", True)
    if then is not True or otherwise is not True:
        yield {"anyOf": [{"allOf": [condition, then]}, {"allOf": [{"not": condition}, otherwise]}]}


def dependent(dependents: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """What must hold where a property is present."""
    for name, wanted in dependents.items():
        then = {"required": wanted} if isinstance(wanted, list) else wanted
        yield {
            "anyOf": [{"properties": {name: False}}, {"required": [name], "allOf": [then]}],
        }
