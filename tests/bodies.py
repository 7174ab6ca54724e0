"""Bodies for the /v1 routes: good ones, and what they become when clients get them wrong."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"


@dataclass(frozen=True)
class Sent:
    """What a client sends to a route; ``content_type`` "": none."""

    path: str
    chunks: tuple[bytes, ...]
    content_type: str

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def __repr__(self) -> str:
        body = self.body
        shown = repr(body) if len(body) < 2000 else f"{body[:1500]!r} ... {body[-400:]!r}"
        return f"Sent({self.path}, {self.content_type!r}, {shown}, cut at {[*map(len, self.chunks)]})"


@dataclass(frozen=True)
class Json:
    """Text that stands for a value, valid or not."""

    text: str


class Pairs(list[tuple[str, Any]]):
    """An object, which may have a key twice."""


def encode(value: Any) -> str:
    if isinstance(value, Json):
        return value.text
    if isinstance(value, dict):
        value = Pairs(value.items())
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{encode(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    return json.dumps(value)


_DEEP = [Json("[" * 500 + "]" * 500), Json("[" * 100_000), Json('{"a":' * 500 + "1" + "}" * 500)]

_JSON_TEXTS = [
    '{"a": 1}',
    '{"a": "\\ud800"}',
    '{"a": NaN}',
    '{"a": 1e999}',
    "[" * 5000 + "]" * 5000,
    "null",
]
"""As arguments and schemas may be sent."""

any_text: Strategy = st.text(st.characters(exclude_categories=()), max_size=30)
"""With control characters and halves of surrogate pairs."""

_TEXTS = any_text | st.sampled_from(
    [
        Json('"\\ud800"'),
        Json('"\\x41"'),
        Json("'text'"),
        Json('"' + "x" * 100_000 + '"'),
        Json('"' + "\\u0000" * 20_000 + '"'),
        *_JSON_TEXTS,
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


def _optional(*values: Any) -> Strategy:
    return st.sampled_from([None, *values])


_SCHEMAS: list[Any] = [{}, {"type": "object", "properties": {"a": {"type": "integer"}}}, {"enum": ["a", 1]}]
_GENERATION: dict[str, Strategy] = {
    "max_tokens": _optional(1, 3),
    "min_tokens": _optional(0, 1),
    "temperature": _optional(0, 0.7, 2),
    "top_p": _optional(0.5, 1),
    "top_k": _optional(-1, 0, 5),
    "min_p": _optional(0, 0.1, 1),
    "seed": _optional(-(2**63), 0, 2**63 - 1),
    "stop": _optional("a", ["b", "c"], []),
    "stop_token_ids": _optional([0, 7], [2**40, -1]),
    "ignore_eos": _optional(True, False),
    "stream": _optional(True, False),
    "stream_options": _optional({"include_usage": True}, {"continuous_usage_stats": True}),
    "echo": _optional(True),
    "keep_alive": _optional(-1, 0, 5, "1s", "never", "-1"),
    "n": _optional(1, 2),
    "frequency_penalty": _optional(-2, 2),
    "presence_penalty": _optional(-2, 2),
    "repetition_penalty": _optional(5e-324, 1.1, 1e300),
    "logit_bias": _optional({}, {"7": 100, "9": -100}, {"99999999": 1}),
    "prompt_logprobs": _optional(0, 2),
    "response_format": _optional(
        {"type": "text"},
        {"type": "json_object"},
        *({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}} for schema in _SCHEMAS),
    ),
    "structured_outputs": _optional({"choice": ["a", "b"]}, {"regex": "[ab]+"}, {"json": "{}"}, {}),
    "guided_json": _optional(*_SCHEMAS, *_JSON_TEXTS),
    "guided_regex": _optional("a|b", "("),
    "guided_grammar": _optional('root ::= "a"'),
    "guided_choice": _optional(["a"]),
}
_ARGUMENTS = st.sampled_from(["{}", '{"a": [1, "ü"]}', {"a": {"b": None}}]) | st.sampled_from(_JSON_TEXTS)
_MESSAGES: Strategy = st.lists(
    st.one_of(
        st.just({"role": "system", "content": "Be short."}),
        st.just({"role": "user", "content": "hello"}),
        st.just({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
        st.just({"role": "assistant", "content": None}),
        st.just({"role": "tool", "content": "4", "tool_call_id": "1"}),
        _ARGUMENTS.map(
            lambda arguments: {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
                ],
            }
        ),
    ),
    min_size=1,
    max_size=3,
)
_CHAT: dict[str, Strategy] = {
    **_GENERATION,
    "max_completion_tokens": _optional(1, 3),
    "add_generation_prompt": _optional(True, False),
    "continue_final_message": _optional(True, False),
    "chat_template_kwargs": _optional({}, {"enable_thinking": False}),
    "logprobs": _optional(True, False),
    "top_logprobs": _optional(0, 5),
    "tools": _optional([]),
    "tool_choice": _optional("none", "auto"),
}
_PROMPTS: Strategy = st.sampled_from(["hello", ["a", "b"], [5, 6], [[5], [6, 7]]])
_COMPLETIONS: dict[str, Strategy] = {
    **_GENERATION,
    "max_tokens": _optional(0, 1, 3),
    "logprobs": _optional(0, 5),
    "best_of": _optional(1),
}


def _bodies(required: dict[str, Strategy], optional: dict[str, Strategy]) -> Strategy:
    """A few of the optional fields at a time: with all of them, some are always at odds."""
    return st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({**required, **{name: optional[name] for name in names}})
    )


def good_bodies(path: str, model: str) -> Strategy:
    names = st.just(model)
    if path == CHAT:
        return _bodies({"model": names, "messages": _MESSAGES}, _CHAT)
    if path == COMPLETIONS:
        return _bodies({"model": names, "prompt": _PROMPTS}, _COMPLETIONS)
    optional = {
        "encoding_format": _optional("float", "base64"),
        "dimensions": _optional(1, 10**9),
        "keep_alive": _optional(0, "1s"),
    }
    return _bodies({"model": names, "input": _PROMPTS}, optional)


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
