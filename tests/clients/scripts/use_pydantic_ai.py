"""pydantic-ai: an agent that answers, calls tools, gives outputs of a type, whole and streamed."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, PromptedOutput, RunContext, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.settings import ModelSettings
from steps import CHAT, TO_THE_POINT, run

provider = OpenAICompatibleProvider(
    "dormouse", base_url=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"]
)
model = OpenAIChatModel(CHAT, provider=provider)
WARM = ModelSettings(temperature=1, seed=7, max_tokens=200)


class Nest(BaseModel):
    """A nest of mice."""

    mice: int = Field(ge=0, le=99)
    season: Literal["winter", "summer"]


class Burrow(BaseModel):
    mice: int = 0


async def text() -> str:
    agent = Agent(model, instructions="Be brief.")
    first = await agent.run("Hello!")
    second = await agent.run("What is 2 + 2?", message_history=first.all_messages())
    assert first.output and second.output and first.response.finish_reason == "stop"
    assert first.usage.input_tokens > 0 and first.usage.output_tokens > 0
    assert second.usage.input_tokens > first.usage.input_tokens
    return f"{first.output!r}, {second.output!r}"


async def streamed() -> str:
    agent = Agent(model)
    whole = await agent.run("Hello!")
    async with agent.run_stream("Hello!") as stream:
        deltas = [delta async for delta in stream.stream_text(delta=True, debounce_by=None)]
        usage = stream.usage
    assert "".join(deltas) == whole.output and len(deltas) > 1
    assert usage.output_tokens == whole.usage.output_tokens
    return f"{len(deltas)} deltas"


async def native_output() -> str:
    agent = Agent(model, output_type=NativeOutput(Nest, strict=True), model_settings=WARM)
    nest = (await agent.run("How many mice?")).output
    assert isinstance(nest, Nest)
    async with agent.run_stream("How many mice?") as stream:
        parts = [part async for part in stream.stream_output(debounce_by=None)]
    assert parts[-1] == nest
    return f"{nest!r}, in {len(parts)} parts"


async def prompted_output() -> str:
    terse = ModelSettings(logit_bias=TO_THE_POINT)
    agent = Agent(model, output_type=PromptedOutput(Burrow), model_settings=terse)
    burrow = (await agent.run("How many mice?")).output
    assert burrow == Burrow()
    return repr(burrow)


async def errors() -> str:
    try:
        await Agent(OpenAIChatModel("no-such", provider=provider)).run("Hello!")
    except ModelHTTPError as error:
        assert error.status_code == 404
        body: Any = error.body
        assert body["code"] == "model_not_found"
        return f"{error.status_code} {body['code']}"
    raise AssertionError("a model that is not there answers")


async def tool_output() -> str:
    agent = Agent(model, output_type=ToolOutput(Nest, name="nest"), model_settings=WARM)
    result = await agent.run("How many mice?")
    assert isinstance(result.output, Nest)
    assert any(isinstance(part, ToolCallPart) and part.tool_name == "nest" for part in result.response.parts)
    async with agent.run_stream("How many mice?") as stream:
        parts = [part async for part in stream.stream_output(debounce_by=None)]
    assert parts[-1] == result.output
    return f"{result.output!r}, in {len(parts)} parts"


async def tools() -> str:
    """A call of the one, then with its result the other, which ends the run."""

    def in_turn(context: RunContext[None]) -> ModelSettings:
        return ModelSettings(WARM, tool_choice=["nest"] if asked else ["get_weather"])

    asked: list[str] = []
    agent = Agent(model, output_type=ToolOutput(Nest, name="nest"), model_settings=in_turn)

    @agent.tool_plain
    def get_weather(city: Literal["Berlin", "Paris"]) -> str:
        """Tells the weather of a city."""
        asked.append(city)
        return f"It rains in {city}."

    result = await agent.run("How many mice?")
    assert asked and asked[0] in ("Berlin", "Paris") and isinstance(result.output, Nest)
    returned = [
        part.content
        for message in result.all_messages()
        for part in message.parts
        if isinstance(part, ToolReturnPart) and part.tool_name == "get_weather"
    ]
    assert returned == [f"It rains in {city}." for city in asked] and result.usage.requests == 2
    return f"get_weather({asked[0]!r}), then {result.output!r}"


run(text, streamed, native_output, prompted_output, errors, tool_output, tools)
