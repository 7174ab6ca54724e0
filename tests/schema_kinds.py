"""Bounded JSON schemas of all kinds, as people and their libraries write them."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def an_object(**properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def text(most: int = 4, **more: Any) -> Schema:
    return {"type": "string", "maxLength": most, **more}


def some(items: Any, least: int = 0, most: int = 3, **more: Any) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most, **more}


def number(least: float, most: float, **more: Any) -> Schema:
    return {"type": "number", "minimum": least, "maximum": most, **more}


WHOLE = {"type": "integer", "minimum": 0, "maximum": 99}
FLAG = {"type": "boolean"}
POINT = an_object(x=number(-1, 1), y={"type": "number"})
CAT = {
    "type": "object",
    "title": "Cat",
    "properties": {"kind": {"const": "cat", "title": "Kind", "type": "string"}, "lives": WHOLE},
    "required": ["kind", "lives"],
}
DOG = {
    "type": "object",
    "title": "Dog",
    "properties": {"kind": {"const": "dog", "type": "string"}, "good": {"default": True, **FLAG}},
    "required": ["kind"],
}
NAMED = {"type": "object", "properties": {"name": text()}, "required": ["name"]}
AGED = {"type": "object", "properties": {"age": WHOLE}, "required": ["age"]}
FORMATS = (
    *(
        "date",
        "time",
        "date-time",
        "duration",
        "email",
        "idn-email",
        "hostname",
        "idn-hostname",
        "ipv4",
        "ipv6",
    ),
    *("uuid", "uri", "iri", "uri-reference", "iri-reference", "uri-template", "json-pointer"),
    *("relative-json-pointer", "regex"),
)

KINDS: dict[str, Schema] = {
    "object": an_object(name=text(10), age={"type": "integer", "minimum": 0}),
    "open object": {"type": "object", "properties": {"a": FLAG}, "required": ["a"]},
    "optional properties": {"type": "object", "properties": {name: {"type": "null"} for name in "abcd"}},
    "undeclared but required": {"type": "object", "properties": {"a": FLAG}, "required": ["a", "b"]},
    "nested": an_object(a=an_object(b=an_object(c=an_object(d=an_object(e=FLAG))))),
    "enum": some({"enum": ["red", 3, None, "blue", 1.5, True, {"a": [1]}, []]}, 1, 4),
    "large enum": {"enum": [f"value {number}" for number in range(1000)]},
    "array of objects": an_object(items=some(an_object(id={"type": "integer"}, tags=some(text())), 1)),
    "tuple": {"type": "array", "prefixItems": [text(), FLAG], "items": False, "minItems": 2},
    "old tuple": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **{"type": "array", "items": [text(), FLAG], "additionalItems": False, "minItems": 2},
    },
    "tuple and more": some(WHOLE, 2, 4, prefixItems=[text(), {"type": "null"}]),
    "anyOf": {"anyOf": [{"type": "null"}, an_object(x={"type": "number"}), {"const": "none"}]},
    "oneOf": {"oneOf": [{"type": "integer", "minimum": 10, "maximum": 20}, FLAG]},
    "oneOf, overlapping": {"oneOf": [number(0, 10), number(5, 20), {"type": "null"}]},
    "oneOf, open": {"oneOf": [NAMED, {"type": "object", "properties": {"age": WHOLE}, "required": ["age"]}]},
    "oneOf, required": {
        **{"type": "object", "properties": {"a": WHOLE, "b": WHOLE, "c": WHOLE}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}, {"required": ["c"]}],
    },
    "oneOf of constants": {"oneOf": [{"const": "a", "title": "A"}, {"const": "b"}, {"const": 1}]},
    "oneOf, told apart": {
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}},
        "$defs": {"Cat": CAT, "Dog": DOG},
    },
    "anyOf beside properties": {
        **{"type": "object", "properties": {"a": WHOLE, "b": WHOLE}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "allOf": {"allOf": [NAMED, AGED]},
    "allOf of references": {
        "allOf": [{"$ref": "#/$defs/Named"}, {"$ref": "#/$defs/Aged"}, {"properties": {"cat": CAT}}],
        "$defs": {"Named": NAMED, "Aged": AGED},
    },
    "allOf of one property": {
        "allOf": [
            {"type": "object", "properties": {"mouse": NAMED}},
            {"properties": {"mouse": AGED}, "required": ["mouse"]},
        ],
    },
    "allOf, derived": {
        "$ref": "#/definitions/Derived",
        "definitions": {
            "Base": {
                **NAMED,
                "properties": {**NAMED["properties"], "inner": {"$ref": "#/definitions/Inner"}},
            },
            "Inner": {"type": "object", "properties": {"deep": FLAG}},
            "Derived": {"allOf": [{"$ref": "#/definitions/Base"}], "properties": {"own": WHOLE}},
        },
    },
    "unevaluated": {"allOf": [NAMED], "properties": {"more": FLAG}, "unevaluatedProperties": False},
    "references": {
        **an_object(start={"$ref": "#/$defs/point"}, end={"$ref": "#/$defs/point"}),
        "$defs": {"point": POINT},
    },
    "odd references": {
        **an_object(
            a={"$ref": "#/$defs/a~1b~0c%25d", "description": "one"},
            b={"$ref": "#/$defs/Box%5Bint%5D"},
            c={"$ref": "#/properties/a"},
            d={"$ref": "#named"},
            e={"$ref": "#/$defs/list/prefixItems/1"},
        ),
        "$defs": {
            "a/b~c%d": WHOLE,
            "Box[int]": NAMED,
            "x": {"$anchor": "named", "type": "null"},
            "list": {"prefixItems": [FLAG, {"const": 7}]},
        },
    },
    "recursive": {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": some({"$ref": "#/$defs/tree"}, 0, 1)},
    },
    "recursive object": {
        "type": "object",
        "properties": {"value": WHOLE, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["value", "next"],
    },
    "pattern": an_object(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}),
    "patterns": an_object(
        a=text(6, pattern="b"),
        b=text(8, pattern="^a|b$"),
        c={"type": "string", "pattern": r"^\d{2}\w{3}\s?$"},
        d={"type": "string", "pattern": r"^\p{Lu}[äöü]{1,3}🐭?$"},
        e={"type": "string", "pattern": r'^["\\/\n]{1,3}$'},
        f=text(3, minLength=2, pattern="^(?:foo|ba+r|x)*"),
    ),
    "unicode": an_object(
        größe={"enum": ["klein", "groß", "日本", "e\u0301"]}, maus={"const": "🐭\u200d\n\"'\\"}
    ),
    "odd names": an_object(
        **{"": FLAG, 'a"b': FLAG, "a\\b": FLAG, "a\nb\x01": FLAG, "🐭 é": FLAG, "$ref": FLAG}
    ),
    "unicode lengths": an_object(a=text(3, minLength=3), b={"enum": ["🐭🐭", "\x00"]}),
    "constants": an_object(
        a={"const": {"b": [1, None, {}], "é": ""}},
        c={"const": None},
        d={"const": 1.0},
        e={"enum": [1e3, 1e-7, -0.5, 12345678901234]},
        f={"const": []},
        g={"type": "integer", "enum": [1, 2.0, "a"]},
        h={"const": False},
    ),
    "number": {"type": "number"},
    "numbers": an_object(
        a=number(-0.5, 1.25),
        b={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        c={"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 3},
        d={"type": "integer", "minimum": -(10**30), "maximum": 10**30},
        e={"type": "number", "minimum": 1e-8, "maximum": 2e-8},
        f={"type": "integer", "minimum": 2**53 - 3},
        g={"type": "integer", "minimum": 0.5, "maximum": 3.5},
    ),
    "multiples": an_object(
        a={"type": "integer", "multipleOf": 5},
        b=number(0, 100, multipleOf=0.01),
        c={"type": "number", "multipleOf": 0.5},
        d=number(-1, 1, multipleOf=0.25),
        e={"type": "integer", "multipleOf": 12, "minimum": -50, "maximum": 50},
        f={"type": "number", "multipleOf": 12.3},
        g={"type": "integer", "multipleOf": 1440, "minimum": 0},
        h=number(0, 1, multipleOf=0.07),
    ),
    "limits without a type": an_object(
        a={"minimum": 0, "maximum": 10}, b={"maxLength": 3}, c={"maxItems": 0}
    ),
    "integer": {"type": ["integer", "null"], "exclusiveMinimum": 3},
    "old exclusive limits": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "number",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1,
    },
    "string": text(20, minLength=2),
    "types": some({"type": ["string", "integer", "null", "boolean"], "maxLength": 3}, 1),
    "booleans": an_object(a=True, b={"const": 1})
    | {"required": ["b"], "properties": {"a": False, "b": {"const": 1}}},
    "notes": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/mouse",
        "title": "Mouse",
        "x-order": 1,
        "nullable": True,
        **an_object(
            a={**WHOLE, "default": 3, "examples": [1], "deprecated": True, "$comment": "c", "format": "int32"}
        ),
    },
    "anything": some(True, 0, 2),
    "anything more": {
        "type": "object",
        "properties": {"a": FLAG},
        "additionalProperties": True,
        "maxProperties": 2,
    },
    "record": {"type": "object", "additionalProperties": WHOLE, "maxProperties": 3},
    "record of at least two": {
        "type": "object",
        "additionalProperties": FLAG,
        "minProperties": 2,
        "maxProperties": 3,
    },
    "record beside properties": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": FLAG},
        "required": ["a"],
        "additionalProperties": WHOLE,
        "maxProperties": 4,
    },
    "record of enum names": {
        "type": "object",
        "propertyNames": {"type": "string", "enum": ["a", "b", "c"]},
        "additionalProperties": WHOLE,
        "required": ["a"],
    },
    "record of such names": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z]{2,5}$"},
        "additionalProperties": WHOLE,
        "maxProperties": 3,
    },
    "record of short names": {
        "type": "object",
        "propertyNames": {"minLength": 1, "maxLength": 3},
        "properties": {"long name": FLAG, "ok": FLAG},
        "additionalProperties": WHOLE,
        "maxProperties": 3,
    },
    "patterns of names": {
        "type": "object",
        "patternProperties": {"^x-": WHOLE, "_id$": FLAG} | {},
        "additionalProperties": False,
        "maxProperties": 3,
    }
    | {"patternProperties": {"^x-": WHOLE, "^[a-w]{1,3}_id$": FLAG}},
    "so many properties": {
        "type": "object",
        "properties": dict.fromkeys("abcde", FLAG),
        "required": ["b"],
        "minProperties": 2,
        "maxProperties": 3,
        "additionalProperties": False,
    },
    "at least one property": {
        "type": "object",
        "properties": dict.fromkeys("abc", FLAG),
        "minProperties": 1,
    },
    "dependent": {
        "type": "object",
        "properties": dict.fromkeys(("card", "address", "city"), WHOLE),
        "dependentRequired": {"card": ["address"], "address": ["city"]},
    },
    "dependent schemas": {
        "type": "object",
        "properties": {"card": WHOLE},
        "dependentSchemas": {"card": {"properties": {"address": text()}, "required": ["address"]}},
    },
    "old dependencies": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"a": WHOLE, "b": WHOLE, "c": WHOLE},
        "dependencies": {"a": ["b"], "b": {"required": ["c"]}},
    },
    "condition": {
        "type": "object",
        "properties": {"country": {"enum": ["de", "us", "fr"]}, "code": text(5)},
        "required": ["country", "code"],
        "if": {"properties": {"country": {"const": "us"}}},
        "then": {"properties": {"code": {"pattern": "^[0-9]{5}$"}}},
        "else": {"properties": {"code": {"minLength": 1, "maxLength": 2}}},
    },
    "conditions": {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "size": WHOLE},
        "required": ["kind"],
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
                "then": {"required": ["size"]},
            },
            {"if": {"properties": {"size": {"minimum": 50}}}, "then": {"properties": {"big": FLAG}}},
        ],
    },
    "not": an_object(
        a={"type": "string", "maxLength": 3, "not": {"enum": ["a", "ab", "🐭", ""]}},
        b={"type": "integer", "minimum": 0, "maximum": 4, "not": {"const": 2}},
        c={"type": ["integer", "null", "boolean"], "not": {"type": "integer"}},
        d={**number(0, 9), "not": {"minimum": 3, "maximum": 6}},
        e={"enum": [1, 2, 3], "not": {"enum": [2]}},
    ),
    "spaces and lines": an_object(a={"type": "string", "pattern": r"^.{3}\s\S[^\s]{2}[\s\S][^a]$"}),
    "not required": {
        "type": "object",
        "properties": {"a": WHOLE, "b": WHOLE},
        "not": {"required": ["a", "b"]},
    },
    "set": some({"enum": ["a", "b", "c", "d"]}, 1, 4, uniqueItems=True),
    "sets": {
        **an_object(
            a={"type": "array", "items": {"$ref": "#/$defs/Colour"}, "uniqueItems": True},
            b=some({"type": "integer", "minimum": 1, "maximum": 6}, 3, 3, uniqueItems=True),
            c={"type": "array", "items": FLAG, "uniqueItems": True},
            d=some(text(), 0, 1, uniqueItems=True),
        ),
        "$defs": {"Colour": {"enum": list("rgbcmyk"), "title": "Colour", "type": "string"}},
    },
    "contains": some({"type": ["integer", "boolean"], "minimum": 0}, 1, 4, contains={"const": 7}),
    "formats": an_object(
        **{name: {"type": "string", "format": name} for name in ("date", "uuid", "email", "time")}
    ),
    "unknown format": an_object(a=text(format="file-path"), b=text(format="haiku")),
    "format and pattern": {"type": "string", "format": "date", "pattern": "^20"},
    "deep": an_object(
        order=an_object(
            id={"type": "string", "format": "uuid"},
            lines=some(
                an_object(sku=text(8, pattern="^[A-Z0-9]+$"), price=number(0, 1000), amount=WHOLE), 1, 2
            ),
            buyer={
                "anyOf": [
                    an_object(name=text(12), mail={"type": "string", "format": "email"}),
                    {"type": "null"},
                ]
            },
            state={"type": "string", "enum": ["new", "paid", "sent"]},
        )
    ),
}


REFUSED: list[tuple[Schema, str]] = [
    (an_object(a=some(text(), uniqueItems=True)), "uniqueItems… at #/properties/a/uniqueItems"),
    (some({"enum": list(range(40))}, 5, 9, uniqueItems=True), "uniqueItems…that many"),
    (an_object(a={"not": {"pattern": "^a"}}), "pattern…#/properties/a/not"),
    (an_object(a={"not": {"const": {}}}), "#/properties/a/not"),
    (some(WHOLE, contains={"const": 1}, minContains=2), "contains…#/contains"),
    ({"propertyNames": {"not": {"const": "a"}}}, "#/propertyNames"),
    (
        {"properties": {str(n): FLAG for n in range(20)}, "minProperties": 5},
        "cannot be counted…#/minProperties",
    ),
    ({"$dynamicRef": "#a"}, "$dynamicRef"),
    ({"$ref": "https://example.com/mouse"}, "'https://example.com/mouse'…out of the schema…#/$ref"),
    ({"$ref": "#/$defs/nobody"}, "'#/$defs/nobody'…no schema"),
    ({"$ref": 3}, "reference"),
    ({"type": "king"}, "type must be…#/type"),
    ({"type": []}, "type must be"),
    (an_object(a={"minimum": 5, "maximum": 3}), "minimum 5 is more than maximum 3, at #/properties/a"),
    ({"minItems": 3, "maxItems": 1}, "minItems 3 is more than maxItems 1"),
    ({"minLength": -1}, "minLength must be a whole number"),
    ({"minimum": "1"}, "minimum must be a number"),
    ({"multipleOf": 0}, "multipleOf must be a number above 0"),
    ({"minimum": 2**60}, "beyond"),
    ({"const": 2**53 + 1}, "beyond"),
    ({"enum": [{"a": [10**30]}]}, "beyond"),
    ({"enum": []}, "enum must be a list"),
    ({"anyOf": []}, "anyOf must be a list"),
    ({"required": "a"}, "required must be a list of texts"),
    ({"properties": 3}, "properties must be an object"),
    ({"items": 3}, "a schema is an object or a boolean, at #/items"),
    ({"pattern": "a(?=b)"}, "looking ahead…#/pattern"),
    ({"pattern": "^(?!foo).*$"}, "looking ahead to what must not come"),
    ({"pattern": r"\bfoo"}, "boundary"),
    ({"patternProperties": {"(?<=a)b": FLAG}}, "looking"),
    ({"anyOf": [NAMED, AGED], "unevaluatedProperties": False}, "unevaluatedProperties"),
    ({"oneOf": [{"minLength": number} for number in range(400)]}, "too much"),
    ({"unevaluatedProperties": {"type": "null"}}, "unevaluatedProperties…unless it is false"),
]
"""And words of the reason."""
