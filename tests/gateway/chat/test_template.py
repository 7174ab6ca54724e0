from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from gateway.chat.template import ChatTemplate, compile_template
from gateway.errors import InvalidRequest

LLAMA_LIKE = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + strftime_now("%d %b %Y") + "\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role == 'user' and loop.index0 > 0 and messages[loop.index0 - 1].role == 'user' %}
        {{- raise_exception("user and assistant must alternate") }}
    {%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- generation %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

CHATML_LIKE = """\
{%- for message in messages %}
    {%- if message.role == "skip" %}{% continue %}{% endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>' ~ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}
        {{- '</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

PARTS = (
    "{% for m in messages %}{% for part in m['content'] %}"
    "[{{ part['type'] }}:{{ part['text'] }}]"
    "{% endfor %}{% endfor %}"
)
PARTS_OR_TEXT = (
    "{% for m in messages %}{% if m.content is string %}({{ m.content }}){% else %}"
    "{% for part in m.content | selectattr('type', 'equalto', 'text') %}[{{ part.text }}]{% endfor %}"
    "{% endif %}{% endfor %}"
)

TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def render(source: str, *messages: dict[str, Any], **options: Any) -> str:
    return ChatTemplate(source).render(messages, special_tokens=TOKENS, **options)


def test_llama_like() -> None:
    today = datetime.now().strftime("%d %b %Y")
    prompt = render(LLAMA_LIKE, {"role": "system", "content": " Be brief. "}, user("Hi <b>&'\""))
    assert prompt == (
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: {today}\n\n"
        "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi <b>&'\"<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_chatml_like_with_client_variables() -> None:
    assert render(CHATML_LIKE, user("Hi")) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    prompt = render(CHATML_LIKE, user("Hi"), variables={"enable_thinking": False})
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert render(CHATML_LIKE, user("Hi"), add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"


def test_client_variables_override_none_of_ours() -> None:
    variables = {"messages": [], "add_generation_prompt": False, "bos_token": "x"}
    for source in (CHATML_LIKE, LLAMA_LIKE):
        assert render(source, user("Hi"), variables=variables) == render(source, user("Hi"))


def test_tool_call_arguments_become_objects_and_tojson_is_plain() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": "<ü>"}'}}
    prompt = render(CHATML_LIKE, user("Hi"), assistant(None, tool_calls=[call]))
    assert '<tool_call>{"name": "add", "arguments": {"a": "<ü>"}}</tool_call>' in prompt


def test_parts_are_joined_unless_the_template_loops_over_them() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert "user\none\ntwo<|im_end|>" in render(CHATML_LIKE, user(parts))
    assert render(PARTS, user(parts)) == "[text:one][text:two]"
    assert render(PARTS_OR_TEXT, user(parts)) == "[one][two]"


def test_a_string_becomes_a_part_only_where_the_template_reads_nothing_else() -> None:
    assert render(PARTS, user("one")) == "[text:one]"
    assert render(PARTS_OR_TEXT, user("one")) == "(one)"


def test_no_tool_calls_are_no_key() -> None:
    asking = "{% for m in messages %}{{ 'tool_calls' in m }}{% endfor %}"
    assert render(asking, assistant("Hi", tool_calls=[])) == "False"


def test_developer_is_system_for_a_template_that_does_not_know_it() -> None:
    developer = {"role": "developer", "content": "Be brief."}
    assert "<|im_start|>system\nBe brief." in render(CHATML_LIKE, developer, user("Hi"))
    knowing = "{% for m in messages %}{{ 'D' if m.role == 'developer' else '?' }}{{ m.content }}{% endfor %}"
    assert render(knowing, developer) == "DBe brief."
    dropping = "{% for m in messages %}{% if m.role != 'developer' %}{{ m.content }}{% endif %}{% endfor %}"
    assert render(dropping, developer, user("Hi")) == "Be brief.Hi"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user(None), "messages[0].content"),
        (user([{"type": "image_url", "image_url": {}}]), "messages[0].content[0].type"),
        (user([{"type": "text"}]), "messages[0].content[0].text"),
    ],
)
def test_content_that_cannot_be_rendered_names_its_field(message: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        render(CHATML_LIKE, message)
    assert caught.value.param == param


@pytest.mark.parametrize("final", ["The answer is", "The answer is ", "  The answer is"])
@pytest.mark.parametrize("source", [LLAMA_LIKE, CHATML_LIKE, PARTS_OR_TEXT])
def test_continue_final_message_cuts_after_its_text(source: str, final: str) -> None:
    messages = [user("The answer is?"), assistant(final)]
    prompt = render(source, *messages, add_generation_prompt=False, continue_final_message=True)
    whole = render(source, *messages, add_generation_prompt=False)
    assert whole.startswith(prompt)
    assert prompt.rstrip().endswith("The answer is")
    assert prompt.count("The answer is") == 2
    if source is CHATML_LIKE:
        assert prompt.endswith(final)


def test_continue_final_message_needs_text() -> None:
    with pytest.raises(InvalidRequest) as caught:
        render(CHATML_LIKE, user("Hi"), assistant("  "), continue_final_message=True)
    assert caught.value.param == "continue_final_message"


def test_what_a_template_refuses_is_a_bad_request_in_its_words() -> None:
    with pytest.raises(InvalidRequest, match="must alternate") as caught:
        render(LLAMA_LIKE, user("Hi"), user("Hi"))
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].nothing.there }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_a_bad_request(source: str) -> None:
    with pytest.raises(InvalidRequest):
        render(source, user("Hi"))


def test_a_broken_template_is_a_clear_error() -> None:
    with pytest.raises(InvalidRequest, match="chat template is broken") as caught:
        ChatTemplate("{% for %}")
    assert caught.value.param == "model"


def test_compiled_once() -> None:
    assert compile_template(CHATML_LIKE) is compile_template(CHATML_LIKE)


def test_tojson_takes_json_dumps_arguments() -> None:
    value = {"b": [1, 2], "a": "é"}
    assert render(
        "{{ messages[0].content }}{{ x | tojson(indent=2) }}", user(""), variables={"x": value}
    ) == (json.dumps(value, ensure_ascii=False, indent=2))


def test_documents_of_the_clients_reach_the_template() -> None:
    documents = [{"text": "mice"}]
    assert render("{{ documents[0].text }}", user("Hi"), variables={"documents": documents}) == "mice"
