"""Answers in every format, and the pieces that they are made of."""

from __future__ import annotations

from gateway.chat.pieces import CallArguments, CallEnd, CallStart, Content, Piece, Reasoning
from gateway.config import ToolParser

SCHEMAS = {
    "f": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
    "g": {"type": "object"},
    "h": {"type": "object", "properties": None},
    "o": {"properties": {"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "y": True}},
}
WIDE = '{"a": 1, "b": "}</tool_call> \\" ü"}'


def call(name: str, arguments: str = "{}", *, whole: bool = True) -> list[Piece]:
    parts: list[Piece] = [CallArguments(arguments)] if arguments else []
    return [CallStart(name), *parts, *([CallEnd()] if whole else [])]


F = call("f", '{"a": 1}')
G = call("g")


def said(text: str) -> list[Piece]:
    return [Content(text)]


CASES: list[tuple[ToolParser, str, list[Piece]]] = [
    ("hermes", f'<tool_call>\n{{"name": "f", "arguments": {WIDE}}}\n</tool_call>', call("f", WIDE)),
    (
        "hermes",
        'Well.\n\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>{"arguments": {}, "name": "g"}</tool_call>\nDone.',
        [*said("Well."), *F, *G, *said("Done.")],
    ),
    ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', F),
    ("hermes", '<tool_call>[{"name": "f", "arguments": {"a": 1}}, {"name": "g"}]</tool_call>', [*F, *G]),
    ("hermes", '<tool_call>{"name": "f", "parameters": {"a": 1}', F),
    ("hermes", '<tool_call>{"id": 7, "type": "function", "name": "g"}</tool_call>', G),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": ', call("f", '{"a": ', whole=False)),
    ("hermes", '<tool_call>{"name": "f", "arg', call("f", "", whole=False)),
    ("hermes", '<tool_call>{"name": "f", "arguments": "barn"}', call("f", '"barn"')),
    ("hermes", '<tool_call>{"arguments": [1], "name": "f"}', call("f", "[1]")),
    ("hermes", '<tool_call>{"name": "g", "arguments": null}', G),
    ("hermes", "a <tool_call> is a mark", said("a <tool_call> is a mark")),
    ("hermes", '<tool_call>{"city": 1}', said('<tool_call>{"city": 1}')),
    ("hermes", '<tool_call>{"name": 3}', said('<tool_call>{"name": 3}')),
    ("hermes", "1 < 2 <tool", said("1 < 2 <tool")),
    ("hermes", " \n{} \n\n", said(" \n{} \n\n")),
    (
        "qwen3_coder",
        "Sure.\n<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n"
        'one\n"two" \\ <b>\n</parameter>\n</function>\n</tool_call>',
        [*said("Sure."), *call("f", '{"a": 1, "b": "one\\n\\"two\\" \\\\ <b>"}')],
    ),
    ("qwen3_coder", "<function=g></function> bye", [*G, *said("bye")]),
    ("qwen3_coder", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', F),
    (
        "qwen3_coder",
        "<tool_call><function=h><parameter=x>None</parameter><parameter=y>[1, 2]</parameter>"
        "<parameter=z>two words</parameter></function></tool_call>",
        call("h", '{"x": null, "y": [1, 2], "z": "two words"}'),
    ),
    ("qwen3_coder", "<function=f><parameter=b>ab", call("f", '{"b": "ab"', whole=False)),
    ("qwen3_coder", 'So:<function=f>{"a": 1}</function><function=g>{}</function>', [*said("So:"), *F, *G]),
    ("qwen3_coder", '<tool_call><function=f>{"a": ', call("f", '{"a": ', whole=False)),
    (
        "seed_oss",
        "<seed:tool_call>\n<function=f>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>\n"
        "<seed:tool_call>\n<function=h>\n<parameter=x>{'y': True}</parameter>\n</function>\n"
        "</seed:tool_call>",
        [*F, *call("h", '{"x": {"y": true}}')],
    ),
    ("llama3_json", '{"name": "f", "parameters": {"a": 1}}', F),
    ("llama3_json", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}; {"name": "g"}', [*F, *G]),
    (
        "llama3_json",
        'I see.\n<|python_tag|>{"name": "g", "parameters": {}}',
        [*said("I see."), *G],
    ),
    ("llama3_json", '{"city": "Ulm"} it is', said('{"city": "Ulm"} it is')),
    ("llama3_json", "<|python_tag|>import os", said("<|python_tag|>import os")),
    ("pythonic", "[f(a=1), g()]", [*F, *G]),
    (
        "pythonic",
        "[h(x=[1, (2)], y={'k': True}, z='a), b')]",
        call("h", '{"x": [1, 2], "y": {"k": true}, "z": "a), b"}'),
    ),
    (
        "pythonic",
        "[h(a='it\\'s', b=-1.5,\n c=None, d=[\"x\", 'y'], e={\"k\": (1, False)}), o.p()]",
        [
            *call("h", """{"a": "it's", "b": -1.5, "c": null, "d": ["x", "y"], "e": {"k": [1, false]}}"""),
            *call("o.p"),
        ],
    ),
    (
        "llama3_json",
        '{"name": "f", "parameters": {"a": 1}}; {"name": "x", "parameters": {}}',
        [*F, *call("x")],
    ),
    ("llama4_pythonic", "<|python_start|>[f(a=1)]<|python_end|>", F),
    ("pythonic", "[1, 2] and [f](x)", said("[1, 2] and [f](x)")),
    ("pythonic", "[f(a=", call("f", "", whole=False)),
    ("llama3_json", '{"name": "Ada", "age": 36}', said('{"name": "Ada", "age": 36}')),
    ("pythonic", "[see(below)] for it", said("[see(below)] for it")),
    ("qwen3_coder", "<function=f><parameter=b>1</parameter></function>", call("f", '{"b": "1"}')),
    ("qwen3_coder", "Write <function=x> here", said("Write <function=x> here")),
    ("qwen3_coder", "Write <function=x", said("Write <function=x")),
    ("qwen3_coder", "<function=o><parameter=x>12</parameter></function>", call("o", '{"x": "12"}')),
    ("qwen3_coder", "<function=o><parameter=x>null</parameter></function>", call("o", '{"x": null}')),
    ("qwen3_coder", "<function=o><parameter=y>NaN</parameter></function>", call("o", '{"y": "NaN"}')),
    (
        "qwen3_coder",
        f"<function=o><parameter=y>{'[' * 3000}</parameter></function>",
        call("o", f'{{"y": "{"[" * 3000}"}}'),
    ),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        [*F, *G],
    ),
    ("mistral_args", '[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}', [*F, *G]),
    ("mistral_args", 'Yes.[TOOL_CALLS]f{"a": 1}', [*said("Yes."), *F]),
    ("mistral", "[TOOL_CALLS]?", said("[TOOL_CALLS]?")),
    (
        "granite",
        '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        [*F, *G],
    ),
    ("granite", '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', F),
    (
        "deepseek_v3",
        "Ok.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        '{"a": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [*said("Ok."), *F, *G],
    ),
    (
        "deepseek_v31",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [*F, *G],
    ),
    (
        "deepseek_v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function f{}<｜tool▁call▁end｜>",
        said("<｜tool▁call▁begin｜>function f{}<｜tool▁call▁end｜>"),
    ),
    (
        "deepseek_v3",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>\n{}<｜tool▁call▁end｜>",
        said("<｜tool▁call▁begin｜>function<｜tool▁sep｜>\n{}<｜tool▁call▁end｜>"),
    ),
    (
        "deepseek_v32",
        'Ok.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n'
        '<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="b" string="true">"x"\n</b></｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="g">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        [*said("Ok."), *call("f", '{"a": 1, "b": "\\"x\\"\\n</b>"}'), *G],
    ),
    (
        "deepseek_v4",
        '<｜DSML｜tool_calls><｜DSML｜invoke name="g">{"a": 1}</｜DSML｜invoke></｜DSML｜tool_calls>!',
        [*call("g", '{"a": 1}'), *said("!")],
    ),
    ("deepseek_v32", "<｜DSML｜function_calls> or so", said("<｜DSML｜function_calls> or so")),
    (
        "deepseek_v32",
        '<｜DSML｜function_calls><｜DSML｜invoke name="f"><｜DSML｜parameter name="b" string="true">x',
        call("f", '{"b": "x"', whole=False),
    ),
    (
        "phi4_mini_json",
        '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]<|/tool_call|>',
        [*F, *G],
    ),
    (
        "glm45",
        "So:\n<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n"
        '<arg_value>\n"x" </arg_value>\n</tool_call><tool_call>g</tool_call>',
        [*said("So:"), *call("f", '{"a": 1, "b": "\\n\\"x\\" "}'), *G],
    ),
    ("glm45", '<tool_call>f\n{"a": 1}\n</tool_call>!', [*F, *said("!")]),
    ("glm45", "<tool_call>f<arg_key>b</arg_key><arg_value>x", call("f", '{"b": "x"', whole=False)),
    ("glm45", 'a <tool_call> is {"a": 1}', said('a <tool_call> is {"a": 1}')),
    ("phi4_mini_json", 'functools[{"name": "f", "arguments": {"a": 1}}]', F),
    ("nemotron_json", '<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>', F),
    ("apriel", '\n<tool_calls>[{"name": "g", "arguments": {}}]</tool_calls>', G),
    ("functionary", 'Ok.<function=f>{"a": 1}</function><function=g>{}</function>', [*said("Ok."), *F, *G]),
    ("functionary", "<function=x>{}</function>", said("<function=x>{}</function>")),
    ("firefunction", 'Well. functools[{"name": "g"}]', [*said("Well."), *G]),
    ("firefunction", "import  functools[0]", said("import  functools[0]")),
    (
        "openai",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        '<|constrain|>json<|message|>{"a": 1}',
        [Reasoning("Hm."), *F],
    ),
    ("openai", ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>', F),
    (
        "openai",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        "<|end|><|start|>assistant<|channel|>final<|message|>Hi.<|return|>",
        [Reasoning("Hm."), *said("I look.Hi.")],
    ),
    (
        "openai",
        "<|channel|>commentary to=functions.g code<|message|>print({})<|call|>",
        call("g", "print({})", whole=False),
    ),
    ("openai", "Hm.<|channel|>final and then", said("Hm.<|channel|>final and then")),
    ("openai", " to=functions.f or so", said(" to=functions.f or so")),
    ("openai", "plain", said("plain")),
]
