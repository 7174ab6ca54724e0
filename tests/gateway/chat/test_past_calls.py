"""Calls and results that clients send back, and tools, as templates of each kind take them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.chat.template import ChatTemplate
from gateway.errors import InvalidRequest

DEEPSEEK_LIKE = """\
{%- for message in messages %}
    {%- if message['role'] == 'assistant' and message['content'] is none %}
        {%- for tool in message['tool_calls'] %}
            {{- '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + tool['function']['name'] + '\\n```json\\n'
                + tool['function']['arguments'] + '\\n```<｜tool▁call▁end｜>' }}
        {%- endfor %}
    {%- else %}
        {{- '<' + message['role'] + '>' + message['content'] }}
    {%- endif %}
{%- endfor %}
"""
CALLS_LIKE = """\
{%- for m in messages %}
    {{- '<' + m.role + '>' + (m.content or '') }}
    {%- for call in m.tool_calls or [] %}
        {{- '<tool_call>' + call.id + ':' + call.function.name + call.function.arguments | tojson }}
    {%- endfor %}
    {{- m.tool_call_id or '' }}
{%- endfor %}
{{- tools | tojson if tools else '' }}
"""
SHORT_IDS = (
    "{%- for m in messages %}{% for call in m.tool_calls or [] %}"
    "{% if call.id | length != 9 %}{{ raise_exception('nine!') }}{% endif %}{% endfor %}{% endfor %}"
    + CALLS_LIKE
)
ONE_CALL = """\
{%- for m in messages %}
    {%- if m.tool_calls is defined and m.tool_calls | length != 1 %}{{ raise_exception('one!') }}{% endif %}
    {{- '<' + m.role + '>' + m.content }}
    {%- if 'tool_calls' in m %}{{ m.tool_calls[0].function.name }}{% endif %}
{%- endfor %}
"""
STRICT = """\
{%- for m in messages %}
    {%- if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}
    {{- '<' + m.role + '>' + m.content }}
{%- endfor %}
"""


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def call(name: str, arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calling(*calls: dict[str, Any], content: str | None = None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def result(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": text, **more}


def render(source: str, *messages: dict[str, Any], **options: Any) -> str:
    return ChatTemplate(source).render(messages, special_tokens={"bos_token": "^"}, **options)


TOOL = {"type": "function", "function": {"name": "gnaw", "parameters": {"type": "object"}}}


def test_a_template_that_takes_arguments_for_text_and_looks_for_no_content() -> None:
    prompt = render(DEEPSEEK_LIKE, user("Hi"), calling(call("add", '{"a": "ü"}')))
    arguments = '\n```json\n{"a": "ü"}\n```'
    assert prompt == f"<user>Hi<｜tool▁call▁begin｜>function<｜tool▁sep｜>add{arguments}<｜tool▁call▁end｜>"


def test_such_a_template_is_told_of_calls_that_come_with_a_text() -> None:
    prompt = render(DEEPSEEK_LIKE, user("Hi"), calling(call("add"), content="I add."))
    assert prompt.startswith("<user>Hi<assistant>I add.<｜tool▁call▁begin｜>function<｜tool▁sep｜>add")
    assert "<｜tool▁sep｜>add" in render(DEEPSEEK_LIKE, user("Hi"), calling(call("add"), content=""))


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": ',
        "no JSON",
        '{"a": NaN}',
        '{"a": "\\ud800"}',
        pytest.param("[" * 10_000 + "]" * 10_000, id="deep"),
        "[1]",
        "7",
    ],
)
@pytest.mark.parametrize("source", [CALLS_LIKE, DEEPSEEK_LIKE])
def test_arguments_that_a_model_got_wrong_come_back_within_an_object(source: str, arguments: str) -> None:
    prompt = render(source, user("Hi"), calling(call("add", arguments)))
    found = json.loads(prompt[prompt.index("{") : prompt.rindex("}") + 1])
    assert found == {"arguments": json.loads(arguments) if arguments in ("[1]", "7") else arguments}


@pytest.mark.parametrize("arguments", ["", "{}", "null", {}])
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    assert render(CALLS_LIKE, calling(call("add", arguments, id="x"))) == "<assistant><tool_call>x:add{}"


def test_ids_of_any_length_are_made_short_for_templates_that_want_them_so() -> None:
    messages = (
        user("Hi"),
        calling(call("add", id="call_0123456789"), call("sub", id="abcdefgh1")),
        result("1", tool_call_id="call_0123456789"),
        result("2", tool_call_id="abcdefgh1"),
    )
    prompt = render(SHORT_IDS, *messages)
    id = prompt.partition("<tool_call>")[2].partition(":")[0]
    assert len(id) == 9 and id.isalnum() and id != "call_0123"
    assert prompt.endswith(f"<tool_call>abcdefgh1:sub{{}}<tool>1{id}<tool>2abcdefgh1")
    assert "call_0123456789:add" in render(CALLS_LIKE, *messages)


def test_calls_and_results_without_ids_get_some() -> None:
    prompt = render(CALLS_LIKE, user("Hi"), calling(call("f", id=None), call("g")), result("1"), result("2"))
    assert prompt == (
        "<user>Hi<assistant><tool_call>call_0:f{}<tool_call>call_1:g{}<tool>1call_0<tool>2call_1"
    )


def test_where_a_template_takes_one_call_a_message_each_has_its_own() -> None:
    messages = (
        user("Hi"),
        calling(call("f", id="a"), call("g", id="b"), content="Hm."),
        result("2", tool_call_id="b"),
        result("1", tool_call_id="a"),
        result("?", tool_call_id="c"),
        user("Go on"),
    )
    assert render(ONE_CALL, *messages) == (
        "<user>Hi<assistant>Hm.f<tool>1<assistant>g<tool>2<tool>?<user>Go on"
    )
    assert render(ONE_CALL, *messages[:2]) == "<user>Hi<assistant>Hm.f<assistant>g"


def test_in_words_results_in_a_row_are_one_text_of_the_user() -> None:
    messages = (user("Hi"), calling(call("f"), call("g"), content="Hm."), result("1"), result("2"))
    assert render(STRICT, *messages) == (
        "<user>Hi<assistant>Hm.\n"
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
        "<user><tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"
    )


def test_in_words_calls_have_the_marks_of_the_models_format() -> None:
    prompt = render(STRICT + "{# <|tool_call|> #}", user("Hi"), calling(call("f"), call("g")))
    assert prompt.endswith('<|tool_call|>[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]')


def test_granite_knows_results_by_their_role() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{# <|tool_call|> #}"
    messages = (user("Hi"), calling(call("f")), result("1"), result("2"))
    assert render(source, *messages).endswith('"arguments": {}}]<tool>1<tool>2')


def test_roles_that_must_alternate_remain_an_error() -> None:
    with pytest.raises(InvalidRequest, match="alternate") as caught:
        render(STRICT, user("Hi"), user("Hi"))
    assert caught.value.param == "messages"


def test_what_the_system_says_goes_to_the_user_where_a_template_knows_no_system() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert render(STRICT, system, user("Hi")) == "<user>Be brief.\n\nHi"
    assert render(STRICT, system) == "<user>Be brief."
    developer = {"role": "developer", "content": "Be brief."}
    assert render(STRICT, developer, user("Hi"), tools=[TOOL]).endswith("Be brief.\n\nHi")


def test_tools_for_a_template_that_looks_for_them_in_the_system_message() -> None:
    source = (
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
        "{% if 'tools' in message %}<|tool|>{{ message['tools'] }}{% endif %}"
        "{% endfor %}"
    )
    functions = json.dumps([TOOL["function"]])
    system = {"role": "system", "content": "Be brief."}
    assert render(source, user("Hi"), tools=[TOOL]) == f"<system><|tool|>{functions}<user>Hi"
    assert render(source, system, user("Hi"), tools=[TOOL]) == f"<system>Be brief.<|tool|>{functions}<user>Hi"
    assert render(source, user("Hi")) == "<user>Hi"
    assert render(source + "{{ tools | length }}", user("Hi"), tools=[TOOL]) == "<user>Hi1"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{% if xml_tools %}{{ xml_tools[0].function.name }}{% endif %}", "gnaw"),
        ("{{ functions }}{{ datetime[:2] }}", json.dumps([TOOL["function"]]) + "20"),
        ("{% for tool in tools %}{{ tool.function.name }}{% endfor %}", "gnaw"),
        ("{{ tools | map(attribute='type') | tojson }}", '["function"]'),
    ],
)
def test_tools_by_whichever_name_a_template_has_for_them(source: str, told: str) -> None:
    assert render(source + "{{ messages[0].content }}", user("Hi"), tools=[TOOL]) == f"{told}Hi"


def test_templates_that_take_tools_for_granted_go_without() -> None:
    assert render("{% for tool in tools %}?{% endfor %}{{ messages[0].content }}", user("Hi")) == "Hi"


def test_reasoning_where_it_is_a_part_of_the_content() -> None:
    source = (
        "{% for m in messages %}{% if m.content is string %}({{ m.content }}){% else %}"
        "{% for block in m.content %}[{{ block['thinking'] or block['text'] }}]{% endfor %}{% endif %}"
        "{% endfor %}"
    )
    thinking = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
    assert render(source, user("Hi"), thinking) == "(Hi)[Hm.][Yes.]"
    assert render(source, user("Hi"), calling(call("f"), reasoning_content="Hm.")) == (
        '(Hi)[Hm.][<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>]'
    )


def test_no_content_for_templates_that_ask_whether_it_is_none_and_cannot_stand_it() -> None:
    source = (
        "{% for m in messages %}{% if m.content is none and not m.tool_calls %}?{% endif %}"
        "{{ m.content | length }}{{ m.tool_calls | length }}{% endfor %}"
    )
    assert render(source, user("Hi"), calling(call("f"))) == "2001"


def test_tools_are_told_of_in_the_templates_own_way_of_calling() -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    prompt = render(DEEPSEEK_LIKE, user("Hi"), tools=[tool])
    assert '{"name": "add"}' in prompt
    assert "<｜tool▁sep｜>the function's name\n```json\n{...}\n```" in prompt
