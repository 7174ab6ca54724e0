"""Which format a model has: what its template shows, or what the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.chat.formats.deepseek import DEEPSEEK_V3, DEEPSEEK_V31
from gateway.chat.formats.dsml import DEEPSEEK_V4, DEEPSEEK_V32
from gateway.chat.formats.glm import GLM
from gateway.chat.formats.harmony import HARMONY
from gateway.chat.formats.hermes import HERMES
from gateway.chat.formats.json_lists import APRIEL, FIREFUNCTION, GRANITE, NEMOTRON, PHI
from gateway.chat.formats.llama import LLAMA
from gateway.chat.formats.mistral import MISTRAL, MISTRAL_ARGS
from gateway.chat.formats.qwen_coder import FUNCTIONARY, QWEN_CODER, SEED_OSS
from gateway.chat.formats.tool_format import ToolFormat
from gateway.config import ToolParser

FORMATS: Final[Mapping[ToolParser, ToolFormat]] = {
    "hermes": HERMES,
    "qwen3_coder": QWEN_CODER,
    "qwen3_xml": QWEN_CODER,
    "seed_oss": SEED_OSS,
    "llama3_json": LLAMA,
    "llama4_json": LLAMA,
    "pythonic": LLAMA,
    "llama4_pythonic": LLAMA,
    "mistral": MISTRAL,
    "mistral_args": MISTRAL_ARGS,
    "granite": GRANITE,
    "deepseek_v3": DEEPSEEK_V3,
    "deepseek_v31": DEEPSEEK_V31,
    "deepseek_v32": DEEPSEEK_V32,
    "deepseek_v4": DEEPSEEK_V4,
    "phi4_mini_json": PHI,
    "firefunction": FIREFUNCTION,
    "functionary": FUNCTIONARY,
    "nemotron_json": NEMOTRON,
    "apriel": APRIEL,
    "glm45": GLM,
    "openai": HARMONY,
}
"""By the names that the configuration has for them."""

_SHOWN: Final = (
    ("<|channel|>", HARMONY),
    ("<seed:tool_call>", SEED_OSS),
    ("<parameter=", QWEN_CODER),
    ("<function=", FUNCTIONARY),
    ("[ARGS]", MISTRAL_ARGS),
    ("[TOOL_CALLS]", MISTRAL),
    ("<|tool_call|>", GRANITE),
    ("<|tool|>", PHI),
    ("functools", FIREFUNCTION),
    ("<TOOLCALL>", NEMOTRON),
    ("<tool_calls>[", APRIEL),
    ("<arg_key>", GLM),
    ("<tool_call>", HERMES),
    ("<|python_tag|>", LLAMA),
    ("<|python_start|>", LLAMA),
    ("[func_name1(", LLAMA),
    ("ipython<|end_header_id|>", LLAMA),
    ("ipython<|header_end|>", LLAMA),
)
"""What a template that has the format says, the more telling first."""


def shown_format(template: str) -> ToolFormat | None:
    """The format that a chat template has its calls in; None if it has none."""
    if "<｜tool▁call▁begin｜>" in template:
        return DEEPSEEK_V3 if "```json" in template else DEEPSEEK_V31
    if "｜DSML｜" in template:
        return DEEPSEEK_V32 if "function_calls" in template else DEEPSEEK_V4
    return next((found for text, found in _SHOWN if text in template), None)
