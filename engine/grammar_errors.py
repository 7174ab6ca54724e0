"""What llguidance says of a constraint, in the words of who asked for it: it quotes its own forms."""

from __future__ import annotations

import re
from typing import Final

_LISTING: Final = re.compile(r"\n *\d+ \| .*", re.DOTALL)
"""Of the grammar that is compiled."""
_PLACE: Final = re.compile(r"^(?:at )?(\d+)\(\d+\): ")
_EXPRESSION: Final = re.compile(
    r".*regex parse error:\n(?:    )?(?P<expression>[^\n]*)\n.*error: (?P<fault>.*)", re.DOTALL
)
_ANCHOR: Final = re.compile(r".*lookarounds not supported yet; (?P<kind>\w+) in regex.*", re.DOTALL)
_ANCHORS: Final = {"Start": "^ within an expression", "End": "$ within an expression"}
_PROPERTY: Final = re.compile(r"required property '.*' is unsatisfiable")
_CROSSED: Final = re.compile(r"\w+ \([^()]*\) is greater than \w+ \([^()]*\)")
_MEANINGS: Final = (
    ("NoExtensionBias", "something in it is nothing but itself"),
    ("circular references", "a reference to what it is in has other keywords beside it"),
    ("are not disjoint", "one name may match several of its patternProperties"),
    ("multipleOf' has too many digits", "a multipleOf has too many digits"),
    ("too many", "it is too large"),
    ("Unable to determine if regex is empty", "its patterns are too large"),
    ("Unsatisfiable schema", "no value fulfils the schema"),
    (
        "min/maxProperties",
        "minProperties and maxProperties are not supported beside so many optional properties",
    ),
)
"""Of what is told in terms of its insides."""
_PREFIXES: Final = re.compile(
    r"^(?:Failed to convert the grammar from GBNF to Lark|failed to compile JSON schema): "
)


def reason(text: str, *, lines: bool) -> str:
    """In one line, at most 300 characters. ``lines``: they are those of the grammar that was asked for."""
    text = _LISTING.sub("", text)
    place = _PLACE.match(text)
    text = _PREFIXES.sub("", _PLACE.sub("", text))
    where = f"line {place[1]}: " if place and lines else ""
    return (where + " ".join(_meaning(text).split()))[:300]


def _meaning(text: str) -> str:
    if found := _EXPRESSION.fullmatch(text):
        return f"the expression {found['expression']!r}: {found['fault']}"
    if found := _ANCHOR.fullmatch(text):
        return f"{_ANCHORS.get(found['kind'], 'a boundary of words')} is not supported"
    if found := _PROPERTY.search(text) or _CROSSED.search(text):
        return found[0].replace("is unsatisfiable", "can have no value")
    return next((meaning for sign, meaning in _MEANINGS if sign in text), text.replace("<non-verbose/>", ""))
