"""Tools: what the model is told of them, what it is held to, and its calls as OpenAI's clients read them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from tests.fake_engine import FakeGrammar
from tests.gateway.api.caller import Reply
from tests.gateway.api.conftest import Gateway, running

MICE = {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]}
TOOLS = [
    {"type": "function", "function": {"name": "find_mice", "description": "Finds.", "parameters": MICE}},
    {"type": "function", "function": {"name": "sleep", "strict": True}},
]
CALL = '<tool_call>\n{"name": "find_mice", "arguments": {"where": "barn"}}\n</tool_call>'
OTHER = '\n<tool_call>\n{"name": "sleep", "arguments": {}}\n</tool_call>'


@pytest.fixture(autouse=True)
def long_enough(gateway: Gateway) -> None:
    gateway.alpha.max_model_len = 2000


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]},
    }


async def ask(gateway: Gateway, answer: str = CALL, **fields: Any) -> Reply:
    """The answer comes by three characters."""
    gateway.alpha.pieces = [answer[at : at + 3] for at in range(0, len(answer), 3)] or [""]
    reply = await gateway.chat(**{"tools": TOOLS, **fields})
    assert reply.status == 200, reply.body
    return reply


def the_choice(reply: Reply) -> dict[str, Any]:
    ChatCompletion.model_validate(reply.json)
    choice: dict[str, Any] = reply.json["choices"][0]
    return choice


def prompt(gateway: Gateway) -> str:
    return bytes(gateway.alpha.requests[-1].prompt_ids).decode()


def grammar(gateway: Gateway) -> Any:
    found = gateway.alpha.requests[-1].sampling.grammar
    assert found is None or isinstance(found, FakeGrammar)
    return found and found.constraint


async def test_a_call(gateway: Gateway) -> None:
    choice = the_choice(await ask(gateway))
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    (call,) = message.pop("tool_calls")
    assert message == {"role": "assistant", "content": None, "refusal": None}
    assert re.fullmatch("call_[0-9a-f]{24}", call["id"])
    assert call["type"] == "function"
    assert call["function"] == {"name": "find_mice", "arguments": '{"where": "barn"}'}


async def test_content_and_two_calls(gateway: Gateway) -> None:
    message = the_choice(await ask(gateway, f"I look.\n{CALL}{OTHER}"))["message"]
    assert message["content"] == "I look."
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["find_mice", "sleep"]
    assert len({call["id"] for call in message["tool_calls"]}) == 2


async def test_one_call_where_clients_want_no_more(gateway: Gateway) -> None:
    message = the_choice(await ask(gateway, CALL + OTHER, parallel_tool_calls=False))["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["find_mice"]
    reply = await ask(gateway, CALL + OTHER, parallel_tool_calls=False, stream=True)
    names = [
        call["function"].get("name")
        for event in reply.events[:-1]
        for call in event["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert [name for name in names if name] == ["find_mice"]


async def test_a_streamed_call_comes_piece_by_piece(gateway: Gateway) -> None:
    reply = await ask(gateway, f"I look.\n{CALL}{OTHER}", stream=True)
    deltas = [event["choices"][0]["delta"] for event in reply.events[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "I look."
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    firsts = [call for call in calls if "id" in call]
    assert [(call["index"], call["type"], call["function"]) for call in firsts] == [
        (0, "function", {"name": "find_mice", "arguments": ""}),
        (1, "function", {"name": "sleep", "arguments": ""}),
    ]
    rest = [call for call in calls if "id" not in call]
    assert all(call.keys() == {"index", "function"} for call in rest)
    assert all(call["function"].keys() == {"arguments"} for call in rest)
    arguments = ["".join(c["function"]["arguments"] for c in rest if c["index"] == index) for index in (0, 1)]
    assert arguments == ['{"where": "barn"}', "{}"]
    assert len(rest) > 4, "in one piece"
    finishes = [event["choices"][0]["finish_reason"] for event in reply.events[:-1]]
    assert finishes == [None] * (len(finishes) - 1) + ["tool_calls"]


async def test_each_choice_has_its_own_calls(gateway: Gateway) -> None:
    reply = await ask(gateway, n=2)
    ids = [choice["message"]["tool_calls"][0]["id"] for choice in reply.json["choices"]]
    assert len(set(ids)) == 2
    reply = await ask(gateway, n=2, stream=True)
    found = {0: "", 1: ""}
    for event in reply.events[:-1]:
        choice = event["choices"][0]
        for call in choice["delta"].get("tool_calls", ()):
            assert call["index"] == 0
            found[choice["index"]] += call["function"]["arguments"]
    assert found == {0: '{"where": "barn"}', 1: '{"where": "barn"}'}


@pytest.mark.parametrize("size", [5, 20, 50, len(CALL) - 3])
async def test_of_a_forced_call_that_the_length_cuts_off_nothing_is_content(
    gateway: Gateway, size: int
) -> None:
    gateway.alpha.finish_reason = "length"
    choice = the_choice(await ask(gateway, CALL[:size], tool_choice="required"))
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] is None
    assert ("tool_calls" in choice["message"]) == (size > 60), "only a whole call can be made"
    reply = await ask(gateway, CALL[:size], tool_choice="required", stream=True)
    assert not any(event["choices"][0]["delta"].get("content") for event in reply.events[:-1])


async def test_an_answer_without_a_call_is_content(gateway: Gateway) -> None:
    choice = the_choice(await ask(gateway, "No mice <here>."))
    assert choice["finish_reason"] == "stop"
    assert choice["message"] == {"role": "assistant", "content": "No mice <here>.", "refusal": None}


async def test_without_tools_nothing_is_read_as_a_call(gateway: Gateway) -> None:
    for fields in ({"tools": None}, {"tools": []}, {"tool_choice": "none"}):
        choice = the_choice(await ask(gateway, CALL, **fields))
        assert choice["message"]["content"] == CALL
        assert "find_mice" not in prompt(gateway)
        assert grammar(gateway) is None


async def test_a_template_that_knows_tools_gets_them_whole(gateway: Gateway) -> None:
    gateway.alpha.chat_template = "{{ tools | tojson }}{{ messages[0].content }}<tool_call>"
    await ask(gateway)
    assert json.loads(prompt(gateway).partition("hello")[0]) == [
        TOOLS[0],
        named("sleep")
        | {
            "function": {
                "name": "sleep",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
            }
        },
    ]
    assert grammar(gateway) is None, "the model is free to call or not"


async def test_one_that_knows_none_is_told_in_words(gateway: Gateway) -> None:
    await ask(
        gateway, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    )
    told, _, rest = prompt(gateway).partition("Be brief.</system>")
    assert told.startswith("<system>You may call") and json.dumps(MICE) in told
    assert rest == "<user>hi</user><assistant>"


async def test_the_words_are_of_the_configured_format() -> None:
    async with running(tool_parser="granite") as gateway:
        gateway.alpha.max_model_len = 2000
        answer = '<|tool_call|>[{"name": "sleep", "arguments": {}}]'
        assert the_choice(await ask(gateway, answer))["finish_reason"] == "tool_calls"
        assert '<|tool_call|>[{"name": "the function' in prompt(gateway)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", ["find_mice", "sleep"]),
        (named("sleep"), ["sleep"]),
        (allowed("required", "find_mice"), ["find_mice"]),
    ],
)
async def test_a_choice_that_forces_a_call(gateway: Gateway, choice: Any, names: list[str]) -> None:
    reply = await ask(gateway, tool_choice=choice)
    assert the_choice(reply)["finish_reason"] == "tool_calls"
    constraint = grammar(gateway)
    assert constraint.kind == "grammar"
    for name in ("find_mice", "sleep"):
        assert (f'"name\\": \\"{name}' in constraint.value) == (name in names)
        assert (name in prompt(gateway)) == (name in names)


async def test_allowed_tools_that_may_be_called(gateway: Gateway) -> None:
    await ask(gateway, tool_choice=allowed("auto", "sleep"))
    assert grammar(gateway) is None
    assert "find_mice" not in prompt(gateway)


async def test_a_call_or_an_answer_in_the_form(gateway: Gateway) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": MICE}}
    await ask(gateway, response_format=form)
    constraint = grammar(gateway)
    assert constraint.kind == "json_schema"
    assert constraint.frame.startswith("start: (calls | @body)")
    await ask(gateway, response_format=form, tool_choice="required")
    assert grammar(gateway).value.startswith("start: (calls)")


STRICT = {"type": "function", "function": {"name": "find_mice", "parameters": MICE, "strict": True}}
LOOSE = {"type": "function", "function": {"name": "dig", "parameters": MICE}}


async def test_a_strict_tool_is_held_to_its_schema_though_it_need_not_be_called(gateway: Gateway) -> None:
    gateway.alpha.tokens = {"<tool_call>": 7}
    await ask(gateway, "No.", tools=[STRICT, LOOSE])
    value = grammar(gateway).value
    assert value.startswith("start: (text_and_calls)")
    assert 'call_0_with: %json {"type": "object", "properties": {"where"' in value
    loose = value.partition("call_1_with: %json")[2]
    assert '"type": "object"' in loose and "where" not in loose
    assert "TEXT (calls TEXT)*" in value
    await ask(gateway, "No.", tools=[STRICT], parallel_tool_calls=False)
    assert "TEXT (calls TEXT)?" in grammar(gateway).value
    await ask(gateway, "No.", tools=[LOOSE])
    assert grammar(gateway) is None


async def test_a_strict_tool_does_not_keep_the_model_from_reasoning(gateway: Gateway) -> None:
    gateway.alpha.tokens = {"<tool_call>": 7}
    gateway.alpha.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ enable_thinking }}{# </think> #}"
    )
    await ask(gateway, "<think>Hm.</think>No.", tools=[STRICT])
    assert grammar(gateway).value.startswith("start: reasoning? (text_and_calls)")
    assert prompt(gateway).endswith("hello")


@pytest.mark.parametrize("parser", ["hermes", "openai", "llama3_json"])
async def test_where_no_token_begins_a_call_nothing_is_held_to(parser: Any) -> None:
    async with running(tool_parser=parser) as gateway:
        gateway.alpha.max_model_len = 2000
        gateway.alpha.tokens = {"<|channel|>": 7, "<|python_tag|>": 8}
        await ask(gateway, "No.", tools=[STRICT])
        assert grammar(gateway) is None


UNIQUE = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "find_mice"}, "tools"),
        ({"tools": [{}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": 1}}]},
            "tools[0].function.parameters",
        ),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": [{"function": {"name": "f\n"}}]}, "tools[0].function.name"),
        (
            {"tools": [{"function": {"name": "f", "parameters": {"type": "string"}}}]},
            "tools[0].function.parameters",
        ),
        (
            {"tools": [{"function": {"name": "f", "parameters": UNIQUE}}], "tool_choice": "required"},
            "tools",
        ),
        ({"tools": None, "tool_choice": "required"}, "tool_choice"),
        ({"tools": None, "tool_choice": named("sleep")}, "tool_choice"),
        ({"tool_choice": named("fly")}, "tool_choice"),
        ({"tool_choice": {}}, "tool_choice.function"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": 3}, "tool_choice"),
        ({"tool_choice": allowed("auto")}, "tool_choice.allowed_tools"),
        ({"tool_choice": allowed("auto", "fly")}, "tool_choice"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"function_call": {"name": "sleep"}}, "functions"),
        ({"functions": [{"name": "sleep"}]}, "functions"),
    ],
)
async def test_what_cannot_be_is_named_and_wakes_nothing(
    gateway: Gateway, stream: bool, fields: dict[str, Any], param: str
) -> None:
    reply = await gateway.chat(**{"tools": TOOLS, **fields}, stream=stream)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert gateway.is_cold()


async def test_a_conversation_with_calls_goes_on(gateway: Gateway) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "sleep", "arguments": "{}"}}
    for content in (None, ""):
        messages = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": content, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "slept"}]},
        ]
        assert the_choice(await ask(gateway, "Good.", messages=messages))["message"]["content"] == "Good."
        assert "<tool_response>\nslept\n</tool_response>" in prompt(gateway)


async def test_openais_first_way_of_calling_in_a_conversation(gateway: Gateway) -> None:
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "function_call": {"name": "sleep", "arguments": "{}"}},
        {"role": "function", "name": "sleep", "content": "slept"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    await ask(gateway, "Good.", messages=messages)
    assert '<tool_call>\n{"name": "sleep", "arguments": {}}' in prompt(gateway)
    assert "<tool_response>\nslept\n</tool_response>" in prompt(gateway)
    assert "<assistant>No.</assistant>" in prompt(gateway)


async def test_a_forced_call_that_a_stop_string_has_broken_is_left_out(gateway: Gateway) -> None:
    choice = the_choice(await ask(gateway, CALL[:50], tool_choice="required"))
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize("levels", [300, 450, 480, 500, 700])
async def test_a_schema_however_deep_is_no_error_of_the_server(gateway: Gateway, levels: int) -> None:
    deep = '{"type": "object", "properties": {"a": ' * levels + "{}" + "}}" * levels
    form = f'"response_format": {{"type": "json_schema", "json_schema": {{"name": "x", "schema": {deep}}}}}'
    tool = f'{{"type": "function", "function": {{"name": "f", "parameters": {deep}}}}}'
    for fields in (form, f'"tools": [{tool}], "tool_choice": "required"'):
        body = f'{{"model": "alpha", "messages": [{{"role": "user", "content": "hello"}}], {fields}}}'
        reply = await gateway.post("/v1/chat/completions", body=body.encode())
        assert reply.status in (200, 400), reply.body


async def test_a_schema_that_cannot_be_enforced_is_told_with_its_function(gateway: Gateway) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": UNIQUE}}]
    reply = await gateway.chat(tools=tools, tool_choice="required")
    assert reply.error["message"].startswith("the parameters of 'f': uniqueItems")
    assert reply.error["message"].endswith("at #/properties/a/uniqueItems")


@pytest.mark.parametrize(
    ("fields", "more"), [({}, 15), ({"max_tokens": 400}, 2), ({"max_completion_tokens": 20}, None)]
)
async def test_calls_that_must_be_are_no_more_than_there_is_room_for(
    gateway: Gateway, fields: dict[str, Any], more: int | None
) -> None:
    """Else one that is cut off would be the last of most weak models' answers."""
    gateway.alpha.max_model_len = 2000
    await ask(gateway, "x", tools=TOOLS, tool_choice="required", **fields)
    value = grammar(gateway).value
    assert (" call)" not in value) if more is None else (f" call){{0,{more}}}" in value)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_within_a_forced_call_is_no_call(gateway: Gateway, stream: bool) -> None:
    reply = await ask(
        gateway,
        '<tool_call>\n{"name": "find_mice", "arguments": {"where": "h',
        tool_choice="required",
        tools=TOOLS,
        stream=stream,
    )
    choice = [event["choices"][0] for event in reply.events[:-1]][-1] if stream else reply.json["choices"][0]
    assert choice["finish_reason"] == "stop"
    if not stream:
        assert "tool_calls" not in choice["message"]


async def test_an_impossible_strict_tool_is_refused_in_every_format() -> None:
    impossible = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": impossible, "strict": True}}
    async with running(tool_parser="llama3_json") as gateway:
        gateway.alpha.max_model_len = 2000
        reply = await gateway.chat("hello", tools=[tool])
        assert (reply.status, reply.error["param"]) == (400, "tools")
        tool["function"]["strict"] = False  # type: ignore[index]
        assert (await gateway.chat("hello", tools=[tool])).status == 200


@pytest.mark.parametrize(
    ("key", "schema"),
    [("e>f", {"type": "boolean"}), ("a", {"type": "array", "items": {"enum": ["</parameter>", "b"]}})],
)
async def test_what_looks_like_the_end_of_a_parameter_is_written_as_json(
    key: str, schema: dict[str, Any]
) -> None:
    parameters = {"type": "object", "properties": {key: schema}, "required": [key]}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    async with running(tool_parser="qwen3_coder") as gateway:
        gateway.alpha.max_model_len = 2000
        await ask(gateway, "x", tools=[tool], tool_choice="required")
        assert "call_0_with: %json" in grammar(gateway).value
