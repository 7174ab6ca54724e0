"""Of alternatives exactly one: whether any two can hold of one value, and if so, each without the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.chat.schemas.document import Document
from gateway.chat.schemas.facts import Facts
from gateway.chat.schemas.schema import Schema
from gateway.chat.schemas.values import equal_key, is_number, type_of

_DEPTH: Final = 8


def exactly_one(parts: Any, schema: Mapping[str, Any], document: Document, place: str) -> Iterator[Schema]:
    """Of ``oneOf``."""
    around = {"type": schema["type"]} if "type" in schema else {}
    typed = [{"allOf": [around, part]} for part in parts]
    overlap = Overlap(document, place)
    others: list[list[Schema]] = [[] for _ in parts]
    for at, one in enumerate(typed):
        for before in range(at):
            if not overlap.disjoint(one, typed[before]):
                others[at].append({"not": parts[before]})
                others[before].append({"not": parts[at]})
    yield {
        "anyOf": [
            {"allOf": [part, *without]} if without else part
            for part, without in zip(parts, others, strict=True)
        ]
    }


class Overlap:
    """The schemas it is asked of must live as long as it does: it knows them by their identity."""

    def __init__(self, document: Document, place: str) -> None:
        self._document = document
        self._place = place
        self._facts: dict[int, Facts] = {}

    def disjoint(self, one: Schema, other: Schema, depth: int = 0) -> bool:
        """Whether no value can be both, as far as is told. Raises SchemaError."""
        self._document.work.step(self._place)
        a, b = self._facts_of(one), self._facts_of(other)
        kinds = a.kinds & b.kinds
        if a.never or b.never or not kinds or _no_common_value(a, b) or _no_common_value(b, a):
            return True
        if depth > _DEPTH:
            return False
        if self._each_disjoint(a, other, depth) or self._each_disjoint(b, one, depth):
            return True
        if kinds <= {"integer", "number"}:
            return a.low > b.high or b.low > a.high
        if kinds == {"object"}:
            return any(self._no_common_property(name, a, b, depth) for name in a.required | b.required)
        if kinds == {"array"}:
            some = max(a.least, b.least) > 0
            return some and any(
                self.disjoint(mine, theirs, depth + 1) for mine in a.first for theirs in b.first
            )
        return kinds == {"string"} and any(
            _begin_apart(mine, theirs) for mine in a.begins for theirs in b.begins
        )

    def _facts_of(self, schema: Schema) -> Facts:
        if id(schema) not in self._facts:
            self._facts[id(schema)] = Facts.of(self._document.conjuncts(schema, self._place))
        return self._facts[id(schema)]

    def _each_disjoint(self, facts: Facts, other: Schema, depth: int) -> bool:
        return any(
            all(self.disjoint(choice, other, depth + 1) for choice in choices) for choices in facts.choices
        )

    def _no_common_property(self, name: str, one: Facts, other: Facts, depth: int) -> bool:
        """Of one that must be there."""
        if any(name not in closed for closed in one.closed + other.closed):
            return True
        return any(
            self.disjoint(mine[name], theirs[name], depth + 1)
            for mine in one.properties
            for theirs in other.properties
            if name in mine and name in theirs
        )


def _begin_apart(one: str, other: str) -> bool:
    size = min(len(one), len(other))
    return one[:size] != other[:size]


def _no_common_value(one: Facts, other: Facts) -> bool:
    if one.values is None:
        return False
    keys = None if other.values is None else {equal_key(value) for value in other.values}
    return not any(
        type_of(value) in other.kinds
        and (keys is None or equal_key(value) in keys)
        and (not is_number(value) or other.low <= (value, 0) <= other.high)
        for value in one.values
    )
