"""Makes ``schema.json`` of OpenAI's specification: what concerns our endpoints, structure alone.

``python -m tests.openai_schema.extract openai-openapi.yaml``, with the file of https://github.com/openai/openai-openapi
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

SCHEMA_FILE: Final = Path(__file__).with_name("schema.json")
ROOTS: Final = (
    "CreateChatCompletionRequest",
    "CreateChatCompletionResponse",
    "CreateChatCompletionStreamResponse",
    "CreateCompletionRequest",
    "CreateCompletionResponse",
    "CreateEmbeddingRequest",
    "CreateEmbeddingResponse",
    "ListModelsResponse",
    "Model",
    "ErrorResponse",
)
"""What we answer and, of the endpoints with a body, what we are asked."""

_REF: Final = "#/components/schemas/"
_KEPT: Final = {
    "const", "enum", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum", "pattern",
    "required", "type",
}  # fmt: skip
_ONE_INSIDE: Final = {"additionalProperties", "items"}
_LIST_INSIDE: Final = {"allOf", "anyOf", "oneOf"}
_DROPPED: Final = {"default", "deprecated", "description", "discriminator", "example", "format", "title"}

Schema = dict[str, Any]


def extract(specification: dict[str, Any]) -> dict[str, Any]:
    """``$defs`` in the words of JSON Schema 2020-12, and the ``version`` of the specification."""
    schemas = specification["components"]["schemas"]
    definitions: dict[str, Schema] = {}
    wanted = list(ROOTS)
    while wanted:
        name = wanted.pop()
        if name not in definitions:
            definitions[name] = structure(schemas[name])
            wanted += _referred(definitions[name])
    return {"version": specification["info"]["version"], "$defs": definitions}


def structure(schema: Any) -> Any:
    """Without prose, and with "or null" instead of OpenAPI's ``nullable``."""
    if isinstance(schema, bool):
        return schema
    kept: Schema = {}
    for key, value in schema.items():
        if key in _KEPT:
            kept[key] = value
        elif key in _ONE_INSIDE:
            kept[key] = structure(value)
        elif key in _LIST_INSIDE:
            kept[key] = [structure(item) for item in value]
        elif key == "properties":
            kept[key] = {name: structure(item) for name, item in value.items()}
        elif key == "$ref":
            kept[key] = "#/$defs/" + value.removeprefix(_REF)
        elif not (key in _DROPPED or key == "nullable" or key.startswith("x-")):
            raise ValueError(f"unknown keyword {key!r}")
    return {"anyOf": [kept, {"type": "null"}]} if schema.get("nullable") else kept


def _referred(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value.removeprefix("#/$defs/")
            else:
                yield from _referred(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _referred(item)


def main() -> None:
    with Path(sys.argv[1]).open("rb") as file:
        specification = yaml.safe_load(file)
    SCHEMA_FILE.write_text(json.dumps(extract(specification), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
