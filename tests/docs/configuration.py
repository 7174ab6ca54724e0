"""docs/configuration.md from the configuration's own types:

python -m tests.docs.configuration > docs/configuration.md
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.config import MemoryConfig, ModelConfig, ServerConfig, Size, TurnConfig
from gateway.config_file import json_schema
from gateway.config_tables import Sleep
from gateway.units import BYTES_HELP, DURATION_HELP, SIZE_HELP

SECTIONS = {
    "Server": ("[server]", (ServerConfig,)),
    "Sleep": ("[sleep]", (ModelConfig,)),
    "Memory": ("[memory]", (MemoryConfig,)),
    "Queue": ("[queue]", (TurnConfig, ModelConfig)),
    "Model": ("[models.NAME]", (ModelConfig,)),
    "Sampling": ("[models.NAME.sampling]", ()),
}
"""The heading of each table of the schema, and where its defaults are."""
KINDS = {DURATION_HELP: "duration", BYTES_HELP: "size", SIZE_HELP: "size or share"}
TYPES = {"string": "text", "boolean": "true or false", "integer": "whole number", "number": "number"}
LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}
INHERITED = dict.fromkeys(Sleep.__struct_fields__, "sleep") | {"max_waiting": "queue", "max_wait": "queue"}
"""What [models.NAME] takes from a section where it says nothing."""


def page() -> str:
    introduction = Path(__file__).with_name("configuration.md").read_text()
    tables: dict[str, dict[str, Any]] = json.loads(json_schema())["$defs"]
    sections = (_section(name, tables[name]) for name in SECTIONS)
    return introduction + "".join("\n" + "\n".join(section) + "\n" for section in sections)


def _section(name: str, table: dict[str, Any]) -> Iterator[str]:
    heading, owners = SECTIONS[name]
    defaults = {field.name: field.default for owner in owners for field in dataclasses.fields(owner)}
    yield from (f"## `{heading}`", table["description"], "")
    yield from ("| key | type | default | what it means |", "| --- | --- | --- | --- |")
    for key, schema in table["properties"].items():
        if "$ref" in schema:
            yield f"| `{key}` | table | | see below |"
            continue
        default = "" if key in table["required"] else _default(name, key, defaults.get(key))
        row = (f"`{key}`", _type(schema), default, schema["description"])
        yield f"| {' | '.join(row)} |"


def _default(table: str, key: str, value: object) -> str:
    if table == "Model" and key in INHERITED:
        return f"`[{INHERITED[key]}]`'s"
    if value is None:
        return "not set"
    return f"`{_toml(key, value)}`"


def _toml(key: str, value: object) -> str:
    match value:
        case Size(share=share) if share is not None:
            return f'"{share:.0%}"'
        case float():
            return f'"{_duration(value)}"'
        case int() if key == "max_body":
            return f'"{value // 2**20}MiB"'
        case tuple():
            return json.dumps(list(value))
    return json.dumps(value)


def _duration(seconds: float) -> str:
    if seconds == math.inf:
        return "never"
    unit, size = next(pair for pair in (("h", 3600), ("m", 60), ("s", 1)) if seconds % pair[1] == 0)
    return f"{seconds / size:.0f}{unit}"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in schema["enum"])
    if schema.get("title") in KINDS:
        return KINDS[schema["title"]]
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}s"
    limits = [f"{word} {schema[limit]}" for limit, word in LIMITS.items() if limit in schema]
    return " ".join((TYPES[schema["type"]], *limits))


if __name__ == "__main__":
    sys.stdout.write(page())
