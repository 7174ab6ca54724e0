"""A schema that allows less, of what it allows, so that weak models come to an end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.chat.schemas import anything
from gateway.chat.schemas.closing import Place, asks_to_close, closed, names_of
from gateway.chat.schemas.limits import kinds_spoken_of, limited_name, number_limits, text_limits
from gateway.chat.schemas.schema import Schema, Work

_MOST: Final = 200_000
"""Places to be looked at."""


def tightened(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Of one in the keywords of ``plain``. Raises SchemaError.

    No properties but those that it names, wherever it names some and says nothing of others: who asks for
    some wants no others, and a weak model would go on inventing them. Other names are of some length. No
    numbers that readers of JSON differ in, nor ever more decimals. And who limits numbers asks for numbers.
    """
    tightening = _Tightening(schema.get("$defs", {}))
    found = tightening.whole({key: value for key, value in schema.items() if key != "$defs"})
    assert isinstance(found, dict)
    return {**found, "$defs": tightening.tightened} if tightening.tightened else found


class _Tightening:
    """A value may be spoken of in several places: a schema, its ``allOf`` and ``anyOf``, and what it refers
    to. The ``whole`` of them is closed at the outside, or each ``part`` would forbid what others name."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._work = Work(_MOST)
        self.tightened: dict[str, Schema] = {}

    def whole(self, schema: Schema, beside: Sequence[Schema] = ()) -> Schema:
        """``beside``: what else speaks of the same value."""
        if isinstance(schema, bool):
            return schema
        if schema.keys() == {"$ref"} and not beside:
            return self._reference(schema["$ref"], whole=True)
        if schema.keys() == {"anyOf"} and not beside:
            return {"anyOf": [self.whole(part) for part in schema["anyOf"]]}
        if schema.keys() == {"allOf"} and len(schema["allOf"]) == 1:
            return self.whole(schema["allOf"][0], beside)
        places = list(self._places((schema, *beside)))
        if kinds := kinds_spoken_of(places):
            schema = {"type": kinds, **schema}
            places[0] = schema
        always = list(self._places((schema, *beside), alternatives=False))
        found = self._part(schema, self._shared(places))
        found |= {**number_limits(places, always), **text_limits(always)}
        if len(places) == 1:
            return anything.limited(
                closed(found, places, wanted=asks_to_close(places, always)), self.tightened
            )
        if asks_to_close(places, always):
            return closed(found, places, wanted=True)
        differ = {*names_of(places)} != {*names_of(always)}
        if differ and "anyOf" in schema and sum("anyOf" in place for place in places) == 1:
            alternatives = zip(found["anyOf"], schema["anyOf"], strict=True)
            each = [closed(part, [*self._places([said]), *always]) for part, said in alternatives]
            return {**found, "anyOf": each}
        return closed(found, places)

    def _part(self, schema: Schema, shared: Mapping[str, list[Schema]]) -> dict[str, Any]:
        """``shared``: what several places say of one property."""
        if isinstance(schema, bool):
            return {} if schema else {"anyOf": [False]}
        found = {key: value for key, value in schema.items() if key != "unevaluatedProperties"}
        for key, value in schema.items():
            if key in ("allOf", "anyOf"):
                found[key] = [self._part(part, shared) for part in value]
            elif key == "prefixItems":
                found[key] = [self.whole(item) for item in value]
            elif key in ("items", "additionalProperties"):
                found[key] = self.whole(value)
            elif key == "properties":
                found[key] = {name: self._property(name, item, shared) for name, item in value.items()}
            elif key == "patternProperties":
                found[key] = {limited_name(name): self.whole(item) for name, item in value.items()}
        if "$ref" in schema:
            return self._referring(found, found.pop("$ref"), shared)
        return found

    def _property(self, name: str, schema: Schema, shared: Mapping[str, list[Schema]]) -> Schema:
        return self.whole(schema, [other for other in shared.get(name, []) if other is not schema])

    def _referring(
        self, found: dict[str, Any], reference: str, shared: Mapping[str, list[Schema]]
    ) -> dict[str, Any]:
        """Instead of a reference what it leads to, where that is of what is shared."""
        target = self._target(reference)
        if shared.keys() & {*names_of(self._places([target]))}:
            return {**found, "allOf": [self._part(target, shared), *found.get("allOf", [])]}
        return {**self._reference(reference, whole=False), **found}

    def _reference(self, reference: str, *, whole: bool) -> dict[str, Any]:
        key = reference.rpartition("/")[2] + ("" if whole else "-part")
        if key not in self.tightened:
            self.tightened[key] = True
            target = self._target(reference)
            self.tightened[key] = self.whole(target) if whole else self._part(target, {})
        return {"$ref": f"#/$defs/{key}"}

    def _target(self, reference: str) -> Schema:
        return self._definitions[reference.rpartition("/")[2]]

    def _places(self, schemas: Sequence[Schema], *, alternatives: bool = True) -> Iterator[Place]:
        """All that speak of the same value."""
        left, seen = list(schemas), set()
        while left:
            part = left.pop(0)
            self._work.step("#")
            if isinstance(part, Mapping):
                yield part
                left += [*part.get("allOf", []), *(part.get("anyOf", []) if alternatives else [])]
                if "$ref" in part and part["$ref"] not in seen:
                    seen.add(part["$ref"])
                    left.append(self._target(part["$ref"]))

    def _shared(self, places: Sequence[Place]) -> dict[str, list[Schema]]:
        """What is said of properties in several places, of those with properties of their own."""
        found: dict[str, list[Schema]] = {}
        for place in places:
            for name, schema in place.get("properties", {}).items():
                if any("properties" in inner for inner in self._places([schema])):
                    found.setdefault(name, []).append(schema)
        return {name: schemas for name, schemas in found.items() if len(schemas) > 1}
