"""Chat templates: from a conversation to the text of a prompt.

A checkpoint brings its template, so it is untrusted: jinja2's immutable sandbox runs it, with the filters,
globals and tags that Hugging Face templates expect. Whatever a template refuses is the request's fault and
becomes an ``InvalidRequest``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.chat.formats.hermes import HERMES
from gateway.chat.formats.known import shown_format
from gateway.chat.formats.tool_format import ToolFormat
from gateway.chat.messages import MessageStyle, TemplateMessage, arguments_as_text, to_template
from gateway.chat.plain_tools import calls_in_words, tools_in_words
from gateway.chat.thinking import Thinking, thinking_of
from gateway.errors import InvalidRequest


class ChatTemplate:
    """One compiled template."""

    def __init__(self, source: str) -> None:
        self._source = source
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InvalidRequest(
                f"the model's chat template is broken: {error.message}", param="model"
            ) from error

    @cached_property
    def style(self) -> MessageStyle:
        """How this template wants its messages, as far as its source tells."""
        return MessageStyle(
            parts=any(
                _iterates_content(loop) for loop in _ENVIRONMENT.parse(self._source).find_all(nodes.For)
            ),
            strings="is string" in self._source,
            developer="developer" in self._source,
            tools="tools" in self._source,
            calls="tool_calls" in self._source,
            none=re.search(r"content['\"]?\]? is none", self._source) is not None,
        )

    @cached_property
    def thinking(self) -> Thinking | None:
        """How the model marks its reasoning, as far as the template tells."""
        return thinking_of(self._source)

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """How the model writes its calls, as far as the template tells."""
        return shown_format(self._source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        special_tokens: Mapping[str, str],
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for ``messages``; ``variables`` are the client's own and override none of ours."""
        conversation = to_template(messages, self.style)
        if not self.style.calls:
            conversation = calls_in_words(conversation)
        if tools and not self.style.tools:
            conversation = tools_in_words(conversation, tools, (self.tool_format or HERMES).layout)
        context: dict[str, Any] = {
            "documents": None,
            **(variables or {}),
            **special_tokens,
            "messages": conversation,
            "tools": list(tools) or None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            prompt = self._render(context)
        except InvalidRequest:
            raise
        except Exception as error:  # a template can fail in any way, and only over what it was given
            reason = error.message if isinstance(error, jinja2.TemplateError) else type(error).__name__
            raise InvalidRequest(
                f"the chat template refused the messages: {reason}", param="messages"
            ) from error
        return _cut_after_final_message(prompt, conversation[-1]) if continue_final_message else prompt

    def _render(self, context: dict[str, Any]) -> str:
        """Most templates print the arguments of calls as an object, some take them for text."""
        try:
            return self._template.render(context)
        except TypeError:
            return self._template.render({**context, "messages": arguments_as_text(context["messages"])})


@lru_cache(maxsize=64)
def compile_template(source: str) -> ChatTemplate:
    return ChatTemplate(source)


def _cut_after_final_message(prompt: str, message: TemplateMessage) -> str:
    """Everything up to the end of the final message's text, so that the model goes on with it."""
    content = message["content"]
    text: str = content if isinstance(content, str) else content[-1]["text"] if content else ""
    start = prompt.rfind(text.strip()) if text.strip() else -1
    if start < 0:
        raise InvalidRequest(
            "continue_final_message: the final message has no text that the chat template keeps",
            param="continue_final_message",
        )
    # Templates often strip; a trailing space of the client's is kept where the template kept it.
    unstripped = text.lstrip()
    if prompt.startswith(unstripped, start):
        return prompt[: start + len(unstripped)]
    return prompt[: start + len(text.strip())]


def _iterates_content(loop: nodes.For) -> bool:
    """Whether a loop runs over a message's content, perhaps through filters."""
    over: nodes.Node | None = loop.iter
    while isinstance(over, nodes.Filter):
        over = over.node
    match over:
        case nodes.Getattr(attr="content") | nodes.Getitem(arg=nodes.Const(value="content")):
            return True
        case nodes.Name(name="content"):
            return True
    return False


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's tokens for training; here its body just passes through."""

    tags = {"generation"}  # noqa: RUF012 jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: jinja2's own filter escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise InvalidRequest(str(message), param="messages")


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


_ENVIRONMENT = _environment()
