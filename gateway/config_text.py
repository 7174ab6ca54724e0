"""The text side of reading a configuration: TOML, environment variables, paths, and words for mistakes."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from gateway.near import nearest

_VARIABLE: Final = re.compile(r"\$\{(?:([A-Za-z_]\w*)(?::-([^}]*))?\})?")
_HUB_ID: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_AT: Final = re.compile(r"(.*) - at `\$(.*)`", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_TOML_WORDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")


class Mistake(Exception):
    """What is wrong with the value of one key."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(_printable(f"{where}: {what}" if where else what))


def _printable(text: str) -> str:
    """A key, which may be anything, neither breaks the line nor moves the terminal's cursor."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise Mistake("", "no such file; `dormouse init` writes one") from None
    except OSError as error:
        raise Mistake("", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Mistake("", f"not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).rpartition(" (at ")
        raise Mistake(where.rstrip(")"), f"not TOML: {what}") from None


def expand_environment(raw: dict[str, Any], mistakes: list[Mistake]) -> dict[str, Any]:
    """With ``${NAME}`` and ``${NAME:-default}`` in every string replaced; where that cannot be,
    a mistake is added."""
    expanded: dict[str, Any] = _expand(raw, "", mistakes)
    return expanded


def _expand(value: Any, where: str, mistakes: list[Mistake]) -> Any:
    if isinstance(value, dict):
        return {
            key: _expand(item, f"{where}.{key}" if where else key, mistakes) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_expand(item, f"{where}[{i}]", mistakes) for i, item in enumerate(value)]
    if isinstance(value, str):
        try:
            return _VARIABLE.sub(lambda match: _variable(match, where, os.environ), value)
        except Mistake as mistake:
            mistakes.append(mistake)
    return value


def _variable(match: re.Match[str], where: str, environment: Mapping[str, str]) -> str:
    name, default = match[1], match[2]
    if name is None:
        raise Mistake(where, "malformed variable: write ${NAME} or ${NAME:-default}")
    value = environment.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise Mistake(where, f"the variable {name} is not set; set it, or write ${{{name}:-default}}")
    return value


def locate(path: str, base: Path) -> str:
    """The absolute directory that ``path`` names from ``base``, or ``path`` itself when it is a hub id."""
    directory = base / Path(path).expanduser()
    if directory.is_dir():
        return os.path.normpath(directory)
    if path[0] in "./~" or not _HUB_ID.fullmatch(path):
        raise ValueError(f"no such directory: {os.path.normpath(directory)} (a hub id looks like owner/name)")
    return path


def explain(
    error: msgspec.ValidationError, table: type[msgspec.Struct], where: str
) -> tuple[Mistake, list[str]]:
    """The same error with the full path of the key and, where there is one, the mend; and the keys that lead
    to what can be left out so as to read on: none where something is missing."""
    at = _AT.fullmatch(str(error))
    what, inner = (at[1], at[2].lstrip(".")) if at else (str(error), "")
    keys = [key for key in re.split(r"\.|\[.*?\]", inner) if key]
    kind = _type_at(table, keys)
    if unknown := _UNKNOWN.fullmatch(what):
        keys.append(unknown[1])
        inner, what = _join(inner, unknown[1]), "unknown key" + _nearest(unknown[1], kind)
    elif missing := _MISSING.fullmatch(what):
        keys = []
        inner, what = _join(inner, missing[1]), "missing"
    elif what.startswith("Invalid enum value"):
        what += ", expected one of " + ", ".join(map(repr, _choices(kind)))
    return Mistake(_join(where, inner), _plain(what)), keys


def _plain(what: str) -> str:
    """``Expected `int`, got `str``` in the words of TOML."""
    words = re.sub(r"`([^`]*)`", lambda match: " or ".join(map(_word, match[1].split(" | "))), what)
    return words[0].lower() + words[1:]


def _word(kind: str) -> str:
    return _TOML_WORDS.get(kind, kind)


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _type_at(table: type[msgspec.Struct], keys: list[str]) -> Any:
    kind: Any = table
    for name in keys:
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == name)
    return kind


def _nearest(key: str, table: Any) -> str:
    near = nearest(key, table.__struct_fields__)
    return f"; did you mean {near}?" if near else f"; known are {', '.join(table.__struct_fields__)}"


def _choices(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [choice for member in get_args(kind) for choice in _choices(member)]
