"""What form an answer must have: OpenAI's ``response_format`` and vLLM's ``structured_outputs``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

JsonSchema = str | dict[str, Any]
"""As text or as it is."""
Choices = Annotated[list[str], Meta(min_length=1)]


class JsonSchemaFormat(Struct, frozen=True, kw_only=True):
    name: str | None = None
    schema_: dict[str, Any] = field(name="schema")


class ResponseFormat(Struct, frozen=True, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(Struct, frozen=True, kw_only=True):
    json: JsonSchema | None = None
    json_object: bool | None = None
    regex: str | None = None
    grammar: str | None = None
    choice: Choices | None = None
    structural_tag: Any = None
