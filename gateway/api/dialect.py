"""How a model writes what is not plain content: from its template, or as the configuration says."""

from __future__ import annotations

from dataclasses import dataclass

from engine import Engine
from gateway.chat.formats.hermes import HERMES
from gateway.chat.formats.known import FORMATS
from gateway.chat.formats.tool_format import ToolFormat
from gateway.chat.template import ChatTemplate
from gateway.chat.thinking import THINKING, Thinking
from gateway.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    tools: ToolFormat
    thinking: Thinking | None

    def mark_tokens(self, engine: Engine) -> dict[str, int]:
        """Ids of the marks that are tokens of their own."""
        thinking = (self.thinking.opening, self.thinking.closing) if self.thinking else ()
        encoded = {
            mark: engine.encode(mark, add_special_tokens=False) for mark in {*self.tools.marks, *thinking}
        }
        return {mark: ids[0] for mark, ids in encoded.items() if len(ids) == 1}


def dialect_of(model: ModelConfig, template: ChatTemplate) -> Dialect:
    """``hermes`` for a model that shows no way of calling tools."""
    tools = FORMATS[model.tool_parser] if model.tool_parser else template.tool_format or HERMES
    return Dialect(tools=tools, thinking=_thinking(model, template, tools))


def _thinking(model: ModelConfig, template: ChatTemplate, tools: ToolFormat) -> Thinking | None:
    if model.reasoning_parser:
        return THINKING[model.reasoning_parser]
    return tools.thinking or template.thinking
