"""What is left when a schema must not hold, for the keywords of which that can be said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.patterns import ANY
from gateway.chat.schemas.schema import Schema, SchemaError
from gateway.chat.schemas.values import is_number, type_of

_KINDS: Final = ("null", "boolean", "number", "string", "array", "object")
_OPPOSITES: Final[Mapping[str, tuple[str, str, int]]] = {
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
}
"""Of which type a value must be to break it, and how."""
_ABOUT: Final = ("title", "description", "default", "examples", "deprecated", "$comment", "nullable")
_APART: Final = ("$schema", "$id", "id", "$anchor", "$defs", "definitions", "then", "else", "discriminator")
_SILENT: Final = frozenset((*_ABOUT, *_APART, "readOnly", "writeOnly"))


def without(denied: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``not``."""
    if isinstance(denied, bool):
        yield not denied
    elif isinstance(denied, Mapping):
        said = {key: value for key, value in denied.items() if key not in _SILENT}
        broken = [_broken(key, value, document, place) for key, value in said.items()]
        yield {"anyOf": broken} if broken else False


def _broken(key: str, value: Any, document: Document, place: str) -> Schema:
    if key in _OPPOSITES and is_number(value):
        kind, opposite, more = _OPPOSITES[key]
        return {"type": kind, opposite: value + more} if value + more >= 0 or not more else False
    match key, value:
        case "$ref", _:
            return {"not": document.follow(value, place)[1]}
        case "not", _:
            return value if isinstance(value, Mapping | bool) else False
        case "allOf", [*parts]:
            return {"anyOf": [{"not": part} for part in parts]}
        case "anyOf", [*parts]:
            return {"allOf": [{"not": part} for part in parts]}
        case "const", _:
            return _others([value], place)
        case "enum", [*values]:
            return _others(values, place)
        case "type", _:
            return _other_types(value if isinstance(value, list) else [value])
        case "required", [*names]:
            missing = [{"properties": {name: False}} for name in names]
            return {"type": "object", "anyOf": missing} if missing else False
        case "properties", {**properties}:
            wrong = [
                {"required": [name], "properties": {name: {"not": part}}} for name, part in properties.items()
            ]
            return {"type": "object", "anyOf": wrong} if wrong else False
    raise SchemaError(f"that {key} must not hold cannot be enforced", place)


def _other_types(kinds: Sequence[Any]) -> Schema:
    """No numbers, where there must be no integers: those between them have no name."""
    left = [kind for kind in _KINDS if kind not in kinds and not (kind == "number" and "integer" in kinds)]
    return {"type": left} if left else False


def _others(values: Sequence[Any], place: str) -> Schema:
    """Any value but these."""
    kinds = {"number" if (kind := type_of(value)) == "integer" else kind for value in values}
    if kinds & {"array", "object"}:
        raise SchemaError("that a value must not be an array or object cannot be enforced", place)
    found: list[dict[str, Any]] = [{"type": [kind for kind in _KINDS if kind not in kinds]}]
    if "string" in kinds:
        texts = {value for value in values if isinstance(value, str)}
        found.append({"type": "string", "pattern": f"^{other_texts(texts)}$"})
    if "boolean" in kinds:
        found += [{"const": value} for value in (False, True) if not any(value is given for given in values)]
    if "number" in kinds:
        found += _gaps(sorted({value for value in values if is_number(value)}))
    return {"anyOf": found}


def _gaps(numbers: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Between them, before the first and after the last."""
    for low, high in zip([None, *numbers], [*numbers, None], strict=True):
        limits = {"exclusiveMinimum": low, "exclusiveMaximum": high}
        yield {"type": "number", **{key: limit for key, limit in limits.items() if limit is not None}}


def other_texts(texts: set[str]) -> str:
    """A regular expression of all texts but these."""
    tails: dict[str, set[str]] = {}
    for text in texts:
        if text:
            tails.setdefault(text[0], set()).add(text[1:])
    others = f"[^{''.join(map(_in_class, sorted(tails)))}]{ANY}*" if tails else f"{ANY}+"
    found = [others, *(re.escape(first) + other_texts(rest) for first, rest in sorted(tails.items()))]
    return f"(?:{'|'.join(found)}){'' if '' in texts else '?'}"


def _in_class(char: str) -> str:
    return rf"\{char}" if char in r"\]^-[&~" else char
