"""JSON schemas of the wire types, by msgspec: they say what its decoders enforce."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

Schema = dict[str, Any]

_TEMPLATE: Final = "#/components/schemas/{name}"
_REFERENCE: Final = re.compile(r"#/components/schemas/(?P<name>.+)")


class Schemas:
    def __init__(self, taken: Sequence[Any], sent: Sequence[Any]) -> None:
        """Of the types that the server takes and of those that it sends."""
        types = [*taken, *sent]
        schemas, self.components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
        self._schemas = dict(zip(types, schemas, strict=True))
        for name in self.components.keys() - self._reached([self[wire_type] for wire_type in taken]):
            _always_whole(self.components[name])

    def __getitem__(self, wire_type: Any) -> Schema:
        schema: Schema = self._schemas[wire_type]
        return schema

    def _reached(self, schema: Any, reached: frozenset[str] = frozenset()) -> frozenset[str]:
        """``reached``, and the names of the components that ``schema`` leads to."""
        if isinstance(schema, list):
            for item in schema:
                reached = self._reached(item, reached)
        elif isinstance(schema, dict):
            name = _REFERENCE.fullmatch(schema.get("$ref", ""))
            if name and name["name"] not in reached:
                reached = self._reached(self.components[name["name"]], reached | {name["name"]})
            reached = self._reached(list(schema.values()), reached)
        return reached


def _always_whole(component: Schema) -> None:
    """What is sent has every field, also those with a default; only what may be unset is left out."""
    for name, schema in component.get("properties", {}).items():
        if "default" in schema:
            del schema["default"]
            component["required"].append(name)
