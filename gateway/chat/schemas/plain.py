"""From all of JSON Schema to the keywords that grammars are made of, exactly, or an error that says where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from gateway.chat.schemas import arrays, conditions, formats, negation, numbers, objects, overlap, patterns
from gateway.chat.schemas.document import Document
from gateway.chat.schemas.patterns import readable
from gateway.chat.schemas.schema import Schema, SchemaError

_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS: Final = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_ONE: Final = ("items", "additionalProperties")
_LISTS: Final = ("allOf", "anyOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties")
_WORDS: Final = ("type", "enum", "const", "required", "$ref", "unevaluatedProperties")
_REWRITTEN: Final = frozenset(("pattern", "multipleOf", "minProperties", "maxProperties"))
"""Into themselves, maybe."""
_KEPT: Final = frozenset((*_NUMBERS, *_COUNTS, *_ONE, *_LISTS, *_NAMED, *_WORDS)) - _REWRITTEN
"""All else is for those who read the schema, or rewritten."""
_REFUSED: Final = ("$dynamicRef", "$recursiveRef")

Rewrite = Callable[[Any, Mapping[str, Any], Document, str], Iterator[Schema]]
"""From a keyword's value, and the schema that it is in, to what must hold instead. Raises SchemaError."""

_REWRITES: Final[Mapping[str, Rewrite]] = {
    "pattern": patterns.matching,
    "multipleOf": numbers.multiples,
    "format": formats.formatted,
    "not": negation.without,
    "oneOf": overlap.exactly_one,
    "if": conditions.either,
    "dependentRequired": conditions.dependent,
    "dependentSchemas": conditions.dependent,
    "dependencies": conditions.dependent,
    "propertyNames": objects.named,
    "minProperties": objects.counted,
    "maxProperties": objects.counted,
    "uniqueItems": arrays.distinct,
    "contains": arrays.containing,
    "unevaluatedItems": arrays.no_others,
}


def plain(root: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, with what it refers to as its ``$defs``. Raises SchemaError."""
    writer = _Writer(Document(root))
    found = writer.schema(root, "#")
    assert isinstance(found, dict)
    return {**found, "$defs": writer.definitions} if writer.definitions else found


class _Writer:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._names: dict[str, str] = {}
        self.definitions: dict[str, Schema] = {}

    def schema(self, schema: Schema, place: str) -> Schema:
        self._document.work.step(place)
        if isinstance(schema, bool):
            return schema
        found: dict[str, Any] = {}
        also: list[Schema] = []
        for key, value in _renamed(schema).items():
            at = f"{place}/{key}"
            if key in _REFUSED:
                raise SchemaError(f"{key} cannot be enforced", at)
            if key in _KEPT:
                found[key] = self._kept(key, value, at)
            if key in _REWRITES:
                also += [part for part in self._rewritten(key, schema, at) if part not in also]
        return _with(found, also)

    def _rewritten(self, key: str, schema: Mapping[str, Any], at: str) -> Iterator[Schema]:
        try:
            for said in _REWRITES[key](schema[key], schema, self._document, at):
                ready = isinstance(said, Mapping) and said.keys() <= _REWRITTEN
                yield said if ready else self.schema(said, at)
        except SchemaError as error:
            within = error.place.startswith(f"{at}/")  # what was written here, and not by the client
            raise SchemaError(error.reason, at if within else error.place) from None

    def _kept(self, key: str, value: Any, at: str) -> Any:
        if key == "$ref":
            return self._reference(value, at)
        if key in _ONE:
            return self.schema(value, at)
        if key in _LISTS:
            return [self.schema(item, f"{at}/{index}") for index, item in enumerate(value)]
        if key == "properties":
            return {name: self.schema(item, f"{at}/{name}") for name, item in value.items()}
        if key == "patternProperties":
            return {_one(name, at): self.schema(item, f"{at}/{name}") for name, item in value.items()}
        if key == "unevaluatedProperties" and not isinstance(value, bool):
            raise SchemaError(f"{key} cannot be enforced unless it is false", at)
        return value

    def _reference(self, reference: Any, at: str) -> str:
        pointer, target = self._document.follow(reference, at)
        if pointer not in self._names:
            name = self._names[pointer] = str(len(self._names))
            self.definitions[name] = True
            self.definitions[name] = self.schema(target, f"#{pointer}")
        return f"#/$defs/{self._names[pointer]}"


def _with(found: dict[str, Any], also: list[Schema]) -> dict[str, Any]:
    """What is not said yet needs no ``allOf``."""
    for part in list(also):
        simple = isinstance(part, Mapping) and part.keys() <= {"anyOf", *_REWRITTEN}
        if isinstance(part, Mapping) and simple and not part.keys() & found.keys():
            found |= part
            also.remove(part)
    return {**found, "allOf": [*found.get("allOf", []), *also]} if also else found


def _one(name: str, place: str) -> str:
    """A pattern of names. Raises SchemaError."""
    pattern, *more = readable(name, place)
    if more:
        raise SchemaError("looking ahead in a pattern of names cannot be enforced", place)
    return pattern


def _renamed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """In today's words what older drafts have others for."""
    found = dict(schema)
    if isinstance(schema.get("items"), list):
        found["prefixItems"] = found.pop("items")
        if "additionalItems" in found:
            found["items"] = found["additionalItems"]
    for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(schema.get(exclusive), bool):
            del found[exclusive]
            if schema[exclusive] and limit in found:
                found[exclusive] = found.pop(limit)
    return found
