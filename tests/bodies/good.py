"""Bodies as they should be, by route, though some of them ask for what there is not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"
RPC = "/collective_rpc"

JSON_TEXTS = [
    '{"a": 1}',
    '{"a": "\\ud800"}',
    '{"a": NaN}',
    '{"a": 1e999}',
    "[" * 1500 + "]" * 1500,
    "null",
]
"""As arguments and schemas may be sent."""


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
    "guided_json": _optional(*_SCHEMAS, *JSON_TEXTS),
    "guided_regex": _optional("a|b", "("),
    "guided_grammar": _optional('root ::= "a"'),
    "guided_choice": _optional(["a"]),
}
_ARGUMENTS = st.sampled_from(["{}", '{"a": [1, "ü"]}', {"a": {"b": None}}]) | st.sampled_from(JSON_TEXTS)
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
                "reasoning_content": "hm",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
                ],
            }
        ),
    ),
    min_size=1,
    max_size=3,
)
_FUNCTION = {"name": "f", "description": "does f", "parameters": {"type": "object", "properties": {"a": {}}}}
_TOOLS = [
    [],
    [{"type": "function", "function": _FUNCTION}],
    [{"function": {"name": "f"}}, {"function": {"name": "g"}}],
]
_TEMPLATED: dict[str, Strategy] = {
    "add_generation_prompt": _optional(True, False),
    "continue_final_message": _optional(True, False),
    "chat_template_kwargs": _optional({}, {"enable_thinking": False}),
    "tools": _optional(*_TOOLS),
}
_CHAT: dict[str, Strategy] = {
    **_GENERATION,
    **_TEMPLATED,
    "max_completion_tokens": _optional(1, 3),
    "logprobs": _optional(True, False),
    "top_logprobs": _optional(0, 5),
    "reasoning_effort": _optional("none", "low"),
    "tool_choice": _optional("none", "auto", "required", {"type": "function", "function": {"name": "f"}}),
    "parallel_tool_calls": _optional(False),
}
_PROMPTS: Strategy = st.sampled_from(["hello", ["a", "b"], [5, 6], [[5], [6, 7]]])
_COMPLETIONS: dict[str, Strategy] = {
    **_GENERATION,
    "max_tokens": _optional(0, 1, 3),
    "logprobs": _optional(0, 5),
    "best_of": _optional(0, 1),
}


_EMBEDDINGS: dict[str, Strategy] = {
    "encoding_format": _optional("float", "base64"),
    "dimensions": _optional(1, 10**9),
    "keep_alive": _optional(0, "1s"),
}
_TOKENIZE: dict[str, Strategy] = {
    **_TEMPLATED,
    "add_special_tokens": _optional(True, False),
    "return_token_strs": _optional(True),
}
_FIELDS: dict[str, tuple[dict[str, Strategy], dict[str, Strategy]]] = {
    CHAT: ({"messages": _MESSAGES}, _CHAT),
    COMPLETIONS: ({"prompt": _PROMPTS}, _COMPLETIONS),
    EMBEDDINGS: ({"input": _PROMPTS}, _EMBEDDINGS),
    TOKENIZE: ({"messages": _MESSAGES}, _TOKENIZE),
    DETOKENIZE: ({"tokens": st.sampled_from([[], [5, 6]])}, {"model": _optional("nobody")}),
    RPC: (
        {"method": st.just("reload_weights")},
        {"args": _optional([]), "kwargs": _optional({}), "timeout": _optional(10, 1e308)},
    ),
}
"""What a body of a route must have beside its model, and what it may have."""


def good_bodies(path: str, model: str) -> Strategy:
    """With a few of the optional fields at a time: of all of them, some are always at odds."""
    required, optional = _FIELDS[path]
    return st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries(
            {"model": st.just(model), **required, **{name: optional[name] for name in names}}
        )
    )
