"""instructor: pydantic models filled in by each of its modes, in parts, and asked for again after a fault."""

from __future__ import annotations

from typing import Any, Literal

import instructor
import openai
from instructor import Mode
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from steps import CHAT, TO_THE_POINT, run

QUESTION: list[Any] = [{"role": "user", "content": "How many mice?"}]
WARM: dict[str, Any] = {"temperature": 1, "seed": 7, "max_tokens": 200}


class Nest(BaseModel):
    """A nest of mice, and nothing else: a small model finds no end of what it may add."""

    model_config = ConfigDict(extra="forbid")
    mice: int = Field(ge=0, le=99)
    season: Literal["winter", "summer"]


class Burrow(BaseModel):
    mice: int = 0


def client(mode: Mode) -> Any:
    return instructor.from_openai(openai.OpenAI(max_retries=0), mode=mode, model=CHAT)


def filled(mode: Mode) -> str:
    """The same whole, streamed in parts, and with the answer it came from."""
    asking = client(mode)
    nest = asking.create(response_model=Nest, messages=QUESTION, **WARM)
    assert isinstance(nest, Nest)
    parts = list(asking.create_partial(response_model=Nest, messages=QUESTION, **WARM))
    assert len(parts) > 1 and Nest.model_validate(parts[-1].model_dump())
    again, answer = asking.create_with_completion(response_model=Nest, messages=QUESTION, **WARM)
    assert again.model_dump() == nest.model_dump() and answer.usage.completion_tokens > 0
    return f"{nest!r}, in {len(parts)} parts"


def asked_again(mode: Mode) -> str:
    faults = []

    class Fussy(Nest):
        @field_validator("season")
        @classmethod
        def not_at_first(cls, season: str, info: ValidationInfo) -> str:
            if not faults:
                faults.append(info.field_name)
                raise ValueError("say it again")
            return season

    nest = client(mode).create(response_model=Fussy, messages=QUESTION, max_retries=2, **WARM)
    assert faults and isinstance(nest, Fussy)
    return repr(nest)


def json_schema() -> str:
    return filled(Mode.JSON_SCHEMA)


def json_schema_asked_again() -> str:
    return asked_again(Mode.JSON_SCHEMA)


async def json_schema_async() -> str:
    asking = instructor.from_openai(openai.AsyncOpenAI(max_retries=0), mode=Mode.JSON_SCHEMA, model=CHAT)
    nest = await asking.create(response_model=Nest, messages=QUESTION, **WARM)
    parts = [part async for part in asking.create_partial(response_model=Nest, messages=QUESTION, **WARM)]
    assert isinstance(nest, Nest) and Nest.model_validate(parts[-1].model_dump())
    return repr(nest)


def json_mode() -> str:
    burrow = client(Mode.JSON).create(response_model=Burrow, messages=QUESTION, logit_bias=TO_THE_POINT)
    assert isinstance(burrow, Burrow) and burrow.mice == 0
    return repr(burrow)


def tools() -> str:
    return filled(Mode.TOOLS)


def tools_asked_again() -> str:
    return asked_again(Mode.TOOLS)


run(json_schema, json_schema_asked_again, json_schema_async, json_mode, tools, tools_asked_again)
