"""Where the schema and every client disagree, and the clients have it their way. Nowhere else.

There are three such places: ``finish_reason`` is null in a streamed text completion before its end; with
``echo`` the first entry of ``token_logprobs`` and of ``top_logprobs`` is null; an embedding may be base64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
Leeway = Callable[[Schema], None]
"""Loosens the definitions in place."""


def leeways(asked: Mapping[str, Any], *, streamed: bool) -> Iterator[Leeway]:
    """What the request ``asked`` for may have."""
    if streamed:
        yield unfinished_text
    if asked.get("echo"):
        yield first_echoed_token
    if asked.get("encoding_format") == "base64":
        yield vectors_in_base64


def unfinished_text(definitions: Schema) -> None:
    """The schema has no chunk of a text completion: each is an answer whose choices have all ended."""
    choice = _text_choice(definitions)
    choice["finish_reason"] = _or_null(choice["finish_reason"])


def first_echoed_token(definitions: Schema) -> None:
    """Nothing comes before the first token of a prompt, which therefore has no probability."""
    present, _ = _text_choice(definitions)["logprobs"]["anyOf"]
    for name in ("token_logprobs", "top_logprobs"):
        items = present["properties"][name]["items"]
        present["properties"][name]["prefixItems"] = [_or_null(items)]


def vectors_in_base64(definitions: Schema) -> None:
    """The schema knows numbers alone; OpenAI's own client asks for this."""
    definitions["Embedding"]["properties"]["embedding"] = {"type": "string"}


def _text_choice(definitions: Schema) -> Schema:
    choice: Schema = definitions["CreateCompletionResponse"]["properties"]["choices"]["items"]["properties"]
    return choice


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
