"""A schema's document: what its references lead to, and how its faults are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from gateway.chat.schemas.checks import Checks
from gateway.chat.schemas.schema import Schema, SchemaError, Work

_MOST: Final = 50_000


class Document:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.work = Work(_MOST)
        self._checks = Checks(root)

    def follow(self, reference: Any, place: str) -> tuple[str, Schema]:
        """The pointer, of which there is one a target, and the schema there. Raises SchemaError."""
        base = self.root.get("$id", self.root.get("id"))
        if not isinstance(reference, str):
            raise SchemaError("a reference is a text", place)
        local = reference.removeprefix(base.rstrip("#")) if isinstance(base, str) else reference
        if local and not local.startswith("#"):
            raise SchemaError(f"the reference {reference!r} leads out of the schema", place)
        pointer = unquote(local[1:])
        found = self._at(pointer) if pointer.startswith("/") or not pointer else self._anchored(pointer)
        if not isinstance(found, Mapping | bool):
            raise SchemaError(f"the reference {reference!r} leads to no schema", place)
        self._checks.check(found, f"#{pointer}")
        return pointer, found

    def conjuncts(self, schema: Schema, place: str) -> list[Schema]:
        """It, and all that its references and ``allOf`` add to it. Raises SchemaError."""
        found, seen, left = [], set(), [schema]
        while left:
            part = left.pop()
            found.append(part)
            if isinstance(part, Mapping):
                left += [item for item in _list(part.get("allOf")) if isinstance(item, Mapping | bool)]
                if "$ref" in part:
                    pointer, target = self.follow(part["$ref"], place)
                    left += [] if pointer in seen else [target]
                    seen.add(pointer)
        return found

    def _at(self, pointer: str) -> Any:
        found: Any = self.root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found

    def _anchored(self, anchor: str) -> Any:
        for value in _within(self.root):
            if value.get("$anchor") == anchor or value.get("$id") == f"#{anchor}":
                return value
        return None


def _within(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _within(item)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
