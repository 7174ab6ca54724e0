"""What a chat template can read: as its source tells, and as it does when it is tried."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from jinja2 import nodes

from gateway.chat.environment import ENVIRONMENT
from gateway.chat.messages import MessageStyle, TemplateMessage
from gateway.chat.past_calls import CallStyle

_TOOLS: Final = frozenset({"tools", "xml_tools", "functions"})
"""Variables that templates have tools in."""
_WORD: Final = "Squeak"
_CALL: Final = {
    "id": "abcdefgh1",
    "type": "function",
    "function": {"name": "gnaw", "arguments": {"what": "wood"}},
}

Render = Callable[[Sequence[TemplateMessage]], str]
"""Of a conversation. It may fail in any way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateStyle:
    messages: MessageStyle
    tells_calls: bool
    calls: CallStyle
    tells_tools: bool
    """Of those that it is given as a variable."""
    tools_in_system: bool
    """It looks for tools in the system message."""


def template_style(source: str, render: Render) -> TemplateStyle:
    tree = ENVIRONMENT.parse(source)
    style = MessageStyle(
        parts=any(_iterates_content(loop) for loop in tree.find_all(nodes.For)),
        strings="is string" in source,
        none=_has(source, r"content['\"]?\]? is none"),
        thoughts=_has(source, r"\[['\"]thinking['\"]\]"),
    )
    trial = _Trial(render, in_parts=style.parts and not style.strings)
    return TemplateStyle(
        messages=replace(
            style, developer="developer" in source and trial.knows("developer"), system=trial.knows("system")
        ),
        tells_calls="tool_calls" in source,
        calls=CallStyle(
            single=_has(source, r"tool_calls['\"]?\]?\[0\]"),
            apart=trial.keeps_calls_apart(),
            short_ids=_has(source, r"length *!= *9"),
        ),
        tells_tools=any(name.name in _TOOLS for name in tree.find_all(nodes.Name)),
        tools_in_system=_has(source, r"message(\.tools|\[['\"]tools['\"]\])"),
    )


class _Trial:
    def __init__(self, render: Render, *, in_parts: bool) -> None:
        self._render = render
        self._said = [{"type": "text", "text": _WORD}] if in_parts else _WORD
        self._user = {"role": "user", "content": self._said}

    def knows(self, role: str) -> bool:
        """Whether what this role says gets into the prompt; yes, if nothing can be found out."""
        alone = self._prompt(self._user)
        with_it = self._prompt({"role": role, "content": self._said}, self._user)
        return not alone or with_it.count(_WORD) > alone.count(_WORD)

    def keeps_calls_apart(self) -> bool:
        """Whether it tells of the calls of a message only where that has no content."""
        beside, alone = (
            self._prompt(self._user, {"role": "assistant", "content": content, "tool_calls": [_CALL]})
            for content in (self._said, None)
        )
        return "gnaw" in alone and _WORD in beside and "gnaw" not in beside

    def _prompt(self, *messages: dict[str, Any]) -> str:
        """Empty if the template refuses them."""
        try:
            return self._render(messages)
        except Exception:  # a template can fail in any way
            return ""


def _has(source: str, pattern: str) -> bool:
    return re.search(pattern, source) is not None


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
