"""Bodies that clients got wrong: good ones with something changed, as text or as bytes."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from tests.bodies.good import JSON_TEXTS, Strategy, good_bodies
from tests.bodies.json_text import Json, Pairs, encode


@dataclass(frozen=True)
class Sent:
    """What a client sends to a route; ``content_type`` "": none."""

    path: str
    chunks: tuple[bytes, ...]
    content_type: str

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


_DEEP = [Json("[" * 500 + "]" * 500), Json("[" * 100_000), Json('{"a":' * 500 + "1" + "}" * 500)]

any_text: Strategy = st.text(st.characters(exclude_categories=()), max_size=30)
"""With control characters and halves of surrogate pairs."""

_TEXTS = any_text | st.sampled_from(
    [
        Json('"\\ud800"'),
        Json('"\\x41"'),
        Json("'text'"),
        Json('"' + "x" * 100_000 + '"'),
        Json('"' + "\\u0000" * 20_000 + '"'),
        *JSON_TEXTS,
    ]
)
_NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from(
        [-1, 0, 1, 2**31, 2**63, 2**64, 5e-324, 1.7e308, math.inf, math.nan]
        + [Json(text) for text in ("1e400", "-1e400", "9" * 400, "9" * 5000, "01", "-", "-Infinity", "-0")]
    )
)
_SCALARS = st.none() | st.booleans() | _TEXTS | _NUMBERS
_LISTS = st.lists(_SCALARS, max_size=4) | st.sampled_from(_DEEP)
_OBJECTS = st.dictionaries(any_text, _SCALARS, max_size=4) | st.sampled_from(_DEEP)
strange_values: Strategy = st.one_of(
    _SCALARS, _LISTS, _OBJECTS, st.lists(_LISTS | _OBJECTS, max_size=2), st.just(Json("nul"))
)


def _like(value: Any) -> Strategy:
    """Strange values of the same type."""
    match value:
        case bool() | None | Json() | Pairs():
            return strange_values
        case str():
            return _TEXTS
        case int() | float():
            return _NUMBERS
        case list():
            return _LISTS
    return _OBJECTS


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in ``value`` with each of its keys."""
    if isinstance(value, Pairs):
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


_CHANGES = ["like"] * 8 + ["any"] * 4 + ["drop", "drop", "wrap", "twice"]


@st.composite
def changed_bodies(draw: st.DrawFn, path: str, model: str) -> Any:
    body = deepcopy(draw(good_bodies(path, model)))
    for _ in range(draw(st.integers(0, 2))):
        places = _places(body)
        if draw(st.integers(0, 9)):  # most often: nothing else is looked at without a model
            places = [place for place in places if place[1] != "model"]
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(_CHANGES)):
            case "like":
                container[key] = draw(_like(container[key]))
            case "any":
                container[key] = draw(strange_values)
            case "drop":
                del container[key]
            case "wrap":
                container[key] = [container[key]]
            case "twice":
                container[key] = Pairs([("role", container[key]), ("role", draw(strange_values))])
    return body


def _twice(body: Any) -> Any:
    """An object in which each key comes again."""
    return Pairs([*body.items(), *body.items()]) if isinstance(body, dict) else body


@st.composite
def broken_texts(draw: st.DrawFn, path: str, model: str) -> bytes:
    body = draw(changed_bodies(path, model))
    text = encode(_twice(body) if draw(st.integers(0, 9)) == 0 else body).encode()
    match draw(st.sampled_from(["whole"] * 20 + ["cut", "bytes", "bom", "utf-16", "more", "other"])):
        case "cut":
            return text[: draw(st.integers(0, len(text)))]
        case "bytes":
            at = draw(st.integers(0, len(text)))
            return text[:at] + draw(st.binary(min_size=1, max_size=4)) + text[at:]
        case "bom":
            return b"\xef\xbb\xbf" + text
        case "utf-16":
            return text.decode().encode("utf-16")
        case "more":
            return text + draw(st.binary(max_size=10))
        case "other":
            return (
                draw(st.binary(max_size=50)) if draw(st.booleans()) else encode(draw(strange_values)).encode()
            )
    return text


_CONTENT_TYPES = st.sampled_from(
    ["application/json"] * 40
    + [
        "",
        "application/json; charset=utf-8",
        "application/json;charset=utf-16",
        "APPLICATION/JSON",
        "text/plain",
    ]
    + [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json, text/plain",
        ";",
    ]
)


@st.composite
def requests(draw: st.DrawFn, models: dict[str, str]) -> Sent:
    """``models``: by route, one that it is for."""
    path = draw(st.sampled_from(sorted(models)))
    text = draw(broken_texts(path, models[path]))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    edges = [0, *cuts, len(text)]
    chunks = tuple(text[a:b] for a, b in pairwise(edges))
    return Sent(path, chunks, draw(_CONTENT_TYPES))
