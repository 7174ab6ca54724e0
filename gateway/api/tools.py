"""The tools of a request: which the model may call, and whether it must."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from gateway.api.schema.chat import ChatCompletionRequest
from gateway.api.schema.tools import ChosenTools, FunctionDefinition, Tool
from gateway.errors import InvalidRequest

_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
_ANY: dict[str, Any] = {"type": "object"}


MOST_CALLS: Final = 16
"""A weak model that must call would go on for ever."""
_CALL_TOKENS: Final = 128
"""Of a call: there are no more of them than an answer has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTools:
    tools: tuple[Tool, ...] = ()
    """None where the model may call none."""
    required: bool = False
    parallel: bool = True
    """More than one call in an answer."""
    room: int | None = None
    """Tokens that the answer may have at most, as far as the request says."""

    @property
    def most_calls(self) -> int:
        """Of an answer that must be calls."""
        if not self.parallel:
            return 1
        return MOST_CALLS if self.room is None else max(1, min(self.room // _CALL_TOKENS, MOST_CALLS))

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """Of each function's arguments, by its name."""
        return {tool.function.name: tool.function.parameters or _NOTHING for tool in self.tools}

    @property
    def strict(self) -> bool:
        """Whether calls, though free to be made or not, must keep to a schema."""
        return not self.required and any(tool.function.strict for tool in self.tools)

    @property
    def strict_schemas(self) -> dict[str, dict[str, Any]]:
        """``schemas``, where those of others than strict tools allow any object."""
        strict = {tool.function.name for tool in self.tools if tool.function.strict}
        return {name: schema if name in strict else _ANY for name, schema in self.schemas.items()}

    def for_template(self) -> list[dict[str, Any]]:
        """Each with parameters, which templates take for granted."""
        return [{"type": "function", "function": _with_parameters(tool.function)} for tool in self.tools]


def offered_tools(request: ChatCompletionRequest) -> OfferedTools:
    """Raises InvalidRequest for a choice that the tools do not allow."""
    tools, choice = request.tools or [], request.tool_choice
    if choice == "none" or (not tools and choice in (None, "auto")):
        return OfferedTools()
    if not tools:
        raise InvalidRequest("tool_choice needs tools to choose from", param="tool_choice")
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidRequest("two tools have the same name", param="tools")
    for at, tool in enumerate(tools):
        if (tool.function.parameters or _NOTHING).get("type", "object") != "object":
            param = f"tools[{at}].function.parameters"
            raise InvalidRequest("the schema of a function's parameters is that of an object", param=param)
    parallel = request.parallel_tool_calls is not False
    room = request.max_completion_tokens or request.max_tokens
    if not isinstance(choice, ChosenTools):
        required = choice == "required"
        return OfferedTools(tools=tuple(tools), required=required, parallel=parallel, room=room)
    chosen, required, several = _chosen(choice)
    if unknown := chosen.difference(names):
        message = f"tool_choice names {', '.join(sorted(unknown))!r}, which is not among the tools"
        raise InvalidRequest(message, param="tool_choice")
    kept = tuple(tool for tool in tools if tool.function.name in chosen)
    return OfferedTools(tools=kept, required=required, parallel=parallel and several, room=room)


def _chosen(choice: ChosenTools) -> tuple[set[str], bool, bool]:
    """The names, whether one of them must be called, and whether more than once."""
    if choice.type == "function":
        if choice.function is None:
            raise InvalidRequest("tool_choice names no function", param="tool_choice.function")
        return {choice.function.name}, True, False
    if choice.allowed_tools is None or not choice.allowed_tools.tools:
        raise InvalidRequest("tool_choice allows no tools", param="tool_choice.allowed_tools")
    names = {tool.function.name for tool in choice.allowed_tools.tools}
    return names, choice.allowed_tools.mode == "required", True


def _with_parameters(function: FunctionDefinition) -> dict[str, Any]:
    return {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or _NOTHING,
    }
