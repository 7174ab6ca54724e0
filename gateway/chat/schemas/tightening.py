"""A schema that allows less, of what it allows: what who asks did not mean, and weak models never end with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any, Final

from gateway.chat.schemas.document import Schema, SchemaError
from gateway.chat.schemas.patterns import ANY
from gateway.chat.schemas.values import LARGEST

_KINDS: Final[Mapping[str, str]] = {
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf": "number",
    "minLength maxLength pattern": "string",
    "items prefixItems minItems maxItems": "array",
    "properties patternProperties additionalProperties required minProperties maxProperties": "object",
}
"""What kind of value keywords speak of."""
_DECIMALS: Final = 1e-9
_COARSE: Final = 1000
"""Up to here multiples can be limited too; of more, the grammar would be too large."""
_LOWS: Final = ("minimum", "exclusiveMinimum")
_HIGHS: Final = ("maximum", "exclusiveMaximum")
_NARROW: Final = 1e-6
"""A range that so few decimals may leave nothing of."""
_OPEN: Final = ("additionalProperties", "patternProperties")
_NAME: Final = f"^{ANY}{{1,64}}$"


def tightened(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Of one in the keywords of ``plain``.

    No properties but those that it names, wherever it names some and says nothing of others: who asks for
    some wants no others, and a weak model would go on inventing them. Other names are of some length. No
    numbers that readers of JSON differ in, nor ever more decimals. And who limits numbers asks for numbers.
    Raises SchemaError.
    """
    tightening = _Tightening(schema.get("$defs", {}))
    found = tightening.whole({key: value for key, value in schema.items() if key != "$defs"})
    assert isinstance(found, dict)
    return {**found, "$defs": tightening.tightened} if tightening.tightened else found


class _Tightening:
    """A value may be spoken of in several places: in a schema and in what is in its ``allOf``, ``anyOf`` and
    ``$ref``. The ``whole`` of them is closed at the outside, or each ``part`` would forbid what others name."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self.tightened: dict[str, Schema] = {}

    def whole(self, schema: Schema, beside: Sequence[Schema] = ()) -> Schema:
        """``beside``: what else speaks of the same value."""
        if isinstance(schema, bool):
            return schema
        if not beside and len(schema) == 1:
            match schema:
                case {"$ref": str() as reference}:
                    return self._reference(reference, whole=True)
                case {"anyOf": parts}:
                    return {"anyOf": [self.whole(part) for part in parts]}
                case {"allOf": [part]}:
                    return self.whole(part)
        places = list(self._places((schema, *beside)))
        if kinds := _kinds(places):
            schema = {"type": kinds, **schema}
            places = [schema, *places[1:]]
        always = list(self._places((schema, *beside), alternatives=False))
        found = {**self._part(schema, self._shared(places)), **_number_limits(places, always)}
        wanted = _asks_to_close(places, always)
        if (
            wanted
            or {*_names(places)} == {*_names(always)}
            or "anyOf" not in schema
            or sum("anyOf" in place for place in places) > 1
        ):
            return _closed(found, places, wanted=wanted)
        return self._closed_each(found, schema, always)

    def _closed_each(
        self, found: dict[str, Any], schema: Mapping[str, Any], always: list[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Of alternatives that name different properties, each is closed for itself."""
        closed = [
            _closed(part, [*self._places([said]), *always], wanted=False)
            for part, said in zip(found["anyOf"], schema["anyOf"], strict=True)
        ]
        return {**found, "anyOf": closed}

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
                found[key] = {_ending(name): self.whole(item) for name, item in value.items()}
            elif key == "$ref" and any(shared.keys() & place.keys() for place in self._named([schema])):
                del found["$ref"]
                found["allOf"] = [*found.get("allOf", []), self._part(self._target(value), shared)]
            elif key == "$ref":
                found |= self._reference(value, whole=False)
        return found

    def _property(self, name: str, schema: Schema, shared: Mapping[str, list[Schema]]) -> Schema:
        return self.whole(schema, [other for other in shared.get(name, []) if other is not schema])

    def _target(self, reference: str) -> Schema:
        return self._definitions[reference.rpartition("/")[2]]

    def _places(self, schemas: Sequence[Schema], *, alternatives: bool = True) -> Iterator[Mapping[str, Any]]:
        """All that speak of the same value."""
        left, seen = list(schemas), set()
        while left:
            part = left.pop(0)
            if isinstance(part, Mapping):
                yield part
                left += [*part.get("allOf", []), *(part.get("anyOf", []) if alternatives else [])]
                if "$ref" in part and part["$ref"] not in seen:
                    seen.add(part["$ref"])
                    left.append(self._target(part["$ref"]))

    def _named(self, schemas: Sequence[Schema]) -> Iterator[Mapping[str, Schema]]:
        return (place["properties"] for place in self._places(schemas) if "properties" in place)

    def _shared(self, places: Sequence[Mapping[str, Any]]) -> dict[str, list[Schema]]:
        """What is said of properties in several places, of objects with properties of their own."""
        found: dict[str, list[Schema]] = {}
        for place in places:
            for name, schema in place.get("properties", {}).items():
                if any(self._named([schema])):
                    found.setdefault(name, []).append(schema)
        return {name: schemas for name, schemas in found.items() if len(schemas) > 1}

    def _reference(self, reference: str, *, whole: bool) -> dict[str, Any]:
        key = reference.rpartition("/")[2] + ("" if whole else "-part")
        if key not in self.tightened:
            self.tightened[key] = True
            target = self._target(reference)
            self.tightened[key] = self.whole(target) if whole else self._part(target, {})
        return {"$ref": f"#/$defs/{key}"}


def _kinds(places: Sequence[Mapping[str, Any]]) -> list[str]:
    """That are spoken of and not named."""
    if any(place.keys() & {"type", "enum", "const"} for place in places):
        return []
    said = {key for place in places for key in place}
    return [kind for keywords, kind in _KINDS.items() if not said.isdisjoint(keywords.split())]


def _closed(schema: dict[str, Any], places: Sequence[Mapping[str, Any]], *, wanted: bool) -> dict[str, Any]:
    """With no names but those that are said, or names of some length where there may be others. ``wanted``:
    it is asked for."""
    others = [place["additionalProperties"] for place in places if "additionalProperties" in place]
    patterns = any("patternProperties" in place for place in places)
    names = dict.fromkeys(_names(places), True)
    least = max(place.get("minProperties", 0) for place in places)
    if not others and not patterns and (wanted or (_names_some(places) and least <= len(names))):
        properties = {**names, **schema.get("properties", {})}
        return {**schema, "properties": properties, "additionalProperties": False}
    if patterns or False in others or not (others or any("object" in _types(place) for place in places)):
        return schema
    named = {"properties": names, "patternProperties": {_NAME: True}, "additionalProperties": False}
    return {**schema, "allOf": [*schema.get("allOf", []), named]}


def _asks_to_close(places: Sequence[Mapping[str, Any]], always: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there must be no properties but those that are said. ``always``: the places that are of no
    alternative. Raises SchemaError when what is said is not the same for all values."""
    if not any(place.get("unevaluatedProperties") is False for place in places):
        return False
    told = [[key for place in some for key in place if key in _OPEN] for some in (places, always)]
    if {*_names(places)} != {*_names(always)} or told[0] != told[1]:
        raise SchemaError("unevaluatedProperties cannot be enforced beside alternatives", "#")
    return True


def _names(places: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for place in places:
        yield from place.get("properties", {})
        yield from place.get("required", [])


def _names_some(places: Sequence[Mapping[str, Any]]) -> bool:
    """Rather than only forbid some."""
    said = [place["properties"].values() for place in places if "properties" in place]
    return any(not schemas or any(schema is not False for schema in schemas) for schemas in said)


def _types(place: Mapping[str, Any]) -> Sequence[str]:
    kinds: str | list[str] = place.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def _number_limits(
    places: Sequence[Mapping[str, Any]], always: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Limits that a number lacks. ``always``: the places that are of no alternative."""
    said = {key for place in places for key in place}
    kinds = {kind for place in places for kind in _types(place)}
    coarse = any(place.get("multipleOf", 0) > _COARSE for place in places)
    if not kinds & {"number", "integer"} or said & {"enum", "const"} or coarse:
        return {}
    low = max((place[key] for place in always for key in _LOWS if key in place), default=-inf)
    high = min((place[key] for place in always for key in _HIGHS if key in place), default=inf)
    limits: dict[str, float] = {}
    if low < -LARGEST:
        limits["minimum"] = -LARGEST
    if high > LARGEST:
        limits["maximum"] = LARGEST
    if "multipleOf" not in said and "number" in kinds and high - low > _NARROW:
        limits["multipleOf"] = _DECIMALS
    return limits


def _ending(pattern: str) -> str:
    """Of names: where it says nothing of their beginning or end, there may be only some characters."""
    if "|" in pattern:
        return pattern
    before = "" if pattern.startswith("^") else f"^{ANY}{{0,32}}"
    after = "" if pattern.endswith("$") else f"{ANY}{{0,32}}$"
    return f"{before}{pattern}{after}"
