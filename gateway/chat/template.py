"""Chat templates: from a conversation to the text of a prompt.

A checkpoint brings its template, so it is untrusted: jinja2's immutable sandbox runs it, with the filters,
globals and tags that Hugging Face templates expect. Whatever a template refuses is the request's fault and
becomes an ``InvalidRequest``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Final

import jinja2

from gateway.chat.continuing import cut_after_final_message
from gateway.chat.environment import ENVIRONMENT
from gateway.chat.formats.hermes import HERMES
from gateway.chat.formats.known import shown_format
from gateway.chat.formats.tool_format import Layout, ToolFormat
from gateway.chat.messages import (
    TemplateMessage,
    arguments_as_text,
    to_template,
    without_none,
    without_system,
)
from gateway.chat.past_calls import shaped_calls
from gateway.chat.plain_tools import calls_in_words, tools_in_system, tools_in_words
from gateway.chat.template_style import TemplateStyle, template_style
from gateway.chat.thinking import Thinking, thinking_of
from gateway.errors import InvalidRequest

REFUSED: Final = "the chat template refused the messages: "


class ChatTemplate:
    """One compiled template."""

    def __init__(self, source: str) -> None:
        self._source = source
        try:
            self._template = ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InvalidRequest(
                f"the model's chat template is broken: {error.message}", param="model"
            ) from error

    @cached_property
    def style(self) -> TemplateStyle:
        """How this template wants a conversation."""
        return template_style(self._source, self._trial)

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
        layout: Layout | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for ``messages``; ``variables`` are the client's own and override none of ours.
        ``layout``: of calls, where they are told of in words; None: as the template shows."""
        conversation = self._conversation(messages, tools, layout or (self.tool_format or HERMES).layout)
        context: dict[str, Any] = {
            "documents": None,
            **_more_variables(tools),
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
            raise InvalidRequest(f"{REFUSED}{reason}", param="messages") from error
        return cut_after_final_message(prompt, conversation[-1]) if continue_final_message else prompt

    def _conversation(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], layout: Layout
    ) -> list[TemplateMessage]:
        style = self.style
        found = shaped_calls(to_template(messages, style.messages), style.calls)
        if not style.tells_calls:
            found = calls_in_words(found, layout)
        if tools and not style.tells_tools:
            found = (
                tools_in_system(found, tools)
                if style.tools_in_system
                else tools_in_words(found, tools, layout)
            )
        return found if style.messages.system else without_system(found)

    def _render(self, context: dict[str, Any]) -> str:
        """Templates differ in what they take for granted; most are content with the first."""
        try:
            return self._template.render(context)
        except TypeError:
            for other in _variants(context):
                with suppress(Exception):
                    return self._template.render(other)
            raise

    def _trial(self, messages: Sequence[TemplateMessage]) -> str:
        nothing = {"bos_token": "", "eos_token": "", "tools": None, "documents": None}
        return self._render({**_more_variables(()), **nothing, "messages": messages})


def _more_variables(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Other names that templates have for tools, and what goes with them."""
    functions = [tool["function"] for tool in tools]
    return {
        "xml_tools": list(tools) or None,
        "functions": json.dumps(functions, ensure_ascii=False),
        "datetime": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
    }


def _variants(context: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """For templates that take arguments for text, empty content for granted, or tools."""
    yield {**context, "messages": arguments_as_text(context["messages"])}
    yield {**context, "messages": without_none(context["messages"])}
    yield {**context, "tools": context["tools"] or []}


@lru_cache(maxsize=64)
def compile_template(source: str) -> ChatTemplate:
    return ChatTemplate(source)
