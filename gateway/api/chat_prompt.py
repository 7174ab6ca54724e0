"""What an engine is to be asked for a chat completion: the prompt, the form of the answer, how to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from engine import Constraint, Engine
from gateway.api.answer import Answer
from gateway.api.constraints import Asked, asked_constraint
from gateway.api.dialect import Dialect, dialect_of
from gateway.api.prompts import encode_now, most_tokens
from gateway.api.schema.chat import ChatCompletionRequest
from gateway.api.tools import MOST_CALLS, OfferedTools, offered_tools
from gateway.chat.continuing import continued_text
from gateway.chat.forced import LarkWriter
from gateway.chat.splitter import AnswerStyle
from gateway.chat.template import REFUSED, ChatTemplate, compile_template
from gateway.config import ModelConfig
from gateway.errors import InvalidRequest

_SWITCHES = ("enable_thinking", "thinking")
"""What templates call the variable that turns reasoning on and off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPrompt:
    token_ids: list[int]
    answer: Callable[[], Answer]
    """Begins to read one choice."""
    asked: Asked | None
    """The form that the answer must have."""
    shown_tokens: frozenset[int]
    """Marks, of which some may be special tokens."""


def read_chat(request: ChatCompletionRequest, model: ModelConfig, engine: Engine) -> ChatPrompt:
    """Blocking. Raises InvalidRequest."""
    template = template_of(model, engine)
    tools = offered_tools(request)
    dialect = dialect_of(model, template)
    asked = asked_constraint(request)
    constrained = tools.required or asked is not None
    variables = template_variables(request, constrained=constrained)
    prompt = render(template, dialect, request, engine, tools, variables)
    opened = _opened(dialect, prompt, request)
    style = _style(dialect, tools, opened, continued=bool(request.continue_final_message))
    marks = dialect.mark_tokens(engine) if style.splits or constrained else {}
    writer = LarkWriter(marks)
    reasons = opened or any(variables.get(name) for name in _SWITCHES)
    return ChatPrompt(
        token_ids=encode_now(
            engine,
            prompt,
            param="messages",
            add_special_tokens=False,
            most=most_tokens(engine.info, request.truncate_prompt_tokens),
        ),
        answer=partial(
            Answer,
            style,
            call_id=dialect.tools.call_id,
            parallel=tools.parallel,
            calls_only=tools.required,
        ),
        asked=_form(asked, tools, dialect, writer, opened, reasons)
        if constrained
        else _strict_form(tools, dialect, writer, opened),
        shown_tokens=frozenset(marks.values()) if style.splits else frozenset(),
    )


def template_of(model: ModelConfig, engine: Engine) -> ChatTemplate:
    source = model.chat_template or engine.info.chat_template
    if source is None:
        raise InvalidRequest(
            f"the model {model.name!r} has no chat template: use /v1/completions, or configure one",
            param="model",
        )
    return compile_template(source)


def render(
    template: ChatTemplate,
    dialect: Dialect,
    request: ChatCompletionRequest,
    engine: Engine,
    tools: OfferedTools,
    variables: Mapping[str, Any],
) -> str:
    continued = bool(request.continue_final_message)
    rendering = partial(
        template.render,
        msgspec.to_builtins(request.messages),
        special_tokens=engine.info.special_tokens,
        add_generation_prompt=not continued and request.add_generation_prompt is not False,
        continue_final_message=continued,
        tools=tools.for_template(),
        layout=dialect.tools.layout,
    )
    return _rendered(rendering, variables, request.chat_template_kwargs or {})


def _rendered(render: Callable[..., str], variables: Mapping[str, Any], clients: Mapping[str, Any]) -> str:
    """Raises InvalidRequest; what the template refuses over the client's own variables names them."""
    try:
        return render(variables=variables)
    except InvalidRequest as error:
        if not clients or not _renders(render, {k: v for k, v in variables.items() if k not in clients}):
            raise
        reason = error.message.removeprefix(REFUSED)
        message = f"the chat template refuses chat_template_kwargs: {reason}"
        raise InvalidRequest(message, param="chat_template_kwargs") from None


def _renders(render: Callable[..., str], variables: Mapping[str, Any]) -> bool:
    try:
        render(variables=variables)
    except InvalidRequest:
        return False
    return True


def _opened(dialect: Dialect, prompt: str, request: ChatCompletionRequest) -> bool:
    """Whether the answer begins within the reasoning."""
    if dialect.thinking is None:
        return False
    final = msgspec.to_builtins(request.messages[-1])
    continued = continued_text(prompt, final) if request.continue_final_message else ""
    return dialect.thinking.opened_by(prompt, continued)


def template_variables(request: ChatCompletionRequest, *, constrained: bool) -> dict[str, Any]:
    """The client's, and whether to reason. Who is held to a form does not, unless asked to."""
    effort = request.reasoning_effort
    reasons = effort != "none" if effort else False if constrained else None
    variables: dict[str, Any] = {} if reasons is None else dict.fromkeys(_SWITCHES, reasons)
    if effort:
        variables["reasoning_effort"] = effort
    return {**variables, **(request.chat_template_kwargs or {})}


def _style(dialect: Dialect, tools: OfferedTools, opened: bool, *, continued: bool) -> AnswerStyle:
    format_reads_reasoning = dialect.tools.thinking is not None
    return AnswerStyle(
        thinking=None if format_reads_reasoning else dialect.thinking,
        opened=opened,
        continued=continued,
        tools=dialect.tools if tools.tools or format_reads_reasoning else None,
        schemas=tools.schemas,
    )


def _form(
    asked: Asked | None,
    tools: OfferedTools,
    dialect: Dialect,
    writer: LarkWriter,
    opened: bool,
    reasons: bool,
) -> Asked:
    """What is asked for, or a call where there are tools, after the reasoning."""
    thinking = dialect.thinking if reasons or dialect.tools.thinking else None
    body = [*(["calls"] if tools.tools else []), *(["@body"] if asked and not tools.required else [])]
    frame = writer.frame(body=body, thinking=thinking, opened=opened, content=dialect.tools.content)
    if tools.tools:
        frame += writer.calls(dialect.tools.layout, tools.schemas, most=tools.most_calls)
    if asked is None or tools.required:
        return "tools", Constraint(kind="grammar", value=frame)
    if thinking is None and not tools.tools:
        return asked
    param, constraint = asked
    return param, replace(constraint, frame=frame)


def _strict_form(tools: OfferedTools, dialect: Dialect, writer: LarkWriter, opened: bool) -> Asked | None:
    """Any text, but calls that are valid: in formats where a token begins calls and nothing else. What is
    impossible is refused in any."""
    if not tools.strict:
        return None
    layout = dialect.tools.layout
    enforced = not dialect.tools.thinking and writer.begins_with_token(layout.start)
    schemas = tools.schemas if enforced and layout.parameters else tools.strict_schemas
    calls = writer.calls(layout, schemas, most=MOST_CALLS if tools.parallel else 1)
    if not enforced:
        return None
    frame = writer.frame(body=["text_and_calls"], thinking=dialect.thinking, opened=opened)
    frame += writer.text_and_calls(several=tools.parallel) + calls
    return "tools", Constraint(kind="grammar", value=frame)
