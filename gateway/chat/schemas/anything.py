"""Values of which nothing is said: their numbers and names have limits as all others."""

from __future__ import annotations

from typing import Any, Final

from gateway.chat.schemas.limits import DECIMALS, NAME
from gateway.chat.schemas.schema import Schema
from gateway.chat.schemas.values import LARGEST

_REFERENCE: Final = {"$ref": "#/$defs/any"}
_NAMED: Final = {"patternProperties": {NAME: _REFERENCE}, "additionalProperties": False}
_ANY: Final = {
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        {"type": "number", "minimum": -LARGEST, "maximum": LARGEST, "multipleOf": DECIMALS},
        {"type": "array", "items": _REFERENCE},
        {"type": "object", **_NAMED},
    ]
}


def limited(schema: dict[str, Any], definitions: dict[str, Schema]) -> dict[str, Any]:
    """A schema that is all that is said of a value. What it needs is added to the definitions."""
    found = dict(schema)
    if not schema:
        found = dict(_REFERENCE)
    for key in ("items", "additionalProperties"):
        found |= {key: _REFERENCE} if schema.get(key) in (True, {}) else {}
    if "properties" in schema:
        properties = schema["properties"].items()
        found["properties"] = {name: _REFERENCE if said in (True, {}) else said for name, said in properties}
    if schema.get("type") == "array" and "items" not in schema:
        found["items"] = _REFERENCE
    if schema.get("type") == "object" and not schema.keys() & {"additionalProperties", "patternProperties"}:
        found["additionalProperties"] = _REFERENCE
    if found != schema:
        definitions["any"] = _ANY
    return found
