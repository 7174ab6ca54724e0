"""Whatever the model would rather say, a finished answer has the form that was asked for."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

import engine as seam
from engine import engine as engine_module
from engine.engine import TorchEngine
from engine.grammar import GrammarCompiler, Matcher, allowed_tokens
from engine.penalties import History
from engine.sampler import SampleRow, sample
from engine.tokenizer import Tokenizer
from engine.types import Constraint, ConstraintKind, EngineError, GenerateRequest, Level, RequestError
from tests.engine.checkpoints import make_tokenizer
from tests.engine.conftest import OpenEngine, OpenStepper
from tests.engine.harness import Answer, collect, greedy, prompt
from tests.engine.test_tokenizer import sentencepiece_like

VOCABULARY = 400
"""Wider than any of the tokenizers, as a model's often is."""

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "mood": {"enum": ["sleepy", "awake", None]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "mood", "tags"],
    "additionalProperties": False,
}


def is_person(value: Any) -> bool:
    return (
        list(value) == ["name", "age", "mood", "tags"]
        and isinstance(value["name"], str)
        and len(value["name"]) <= 8
        and type(value["age"]) is int
        and 0 <= value["age"] <= 120
        and value["mood"] in ("sleepy", "awake", None)
        and 1 <= len(value["tags"]) <= 3
        and all(isinstance(tag, str) and len(tag) <= 3 for tag in value["tags"])
    )


def is_tree(value: Any) -> bool:
    """A list of at most two trees."""
    return isinstance(value, list) and len(value) <= 2 and all(map(is_tree, value))


def schema(value: Any) -> Constraint:
    return Constraint(kind="json_schema", value=json.dumps(value))


def of_json(check: Callable[[Any], bool]) -> Callable[[str], bool]:
    return lambda text: check(json.loads(text))


def matches(expression: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(expression, text) is not None


DATE = r"[12][0-9]{3}-(0[1-9]|1[0-2])-[0-3][0-9]"
FRAME = 'start: "(" @body ")" | "no"'
ARITHMETIC = """
start: term (("+" | "-") term)*
term: NUMBER | "(" start ")"
NUMBER: /[0-9]{1,3}/
"""
CHOICES = ("a", "ab", 'quoted "é"\n', "日本", "🐭")

CASES: dict[str, tuple[Constraint, Callable[[str], bool]]] = {
    "json": (Constraint(kind="json"), of_json(lambda value: isinstance(value, dict))),
    "object": (schema(PERSON), of_json(is_person)),
    "recursive": (
        schema(
            {
                "$ref": "#/$defs/t",
                "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}, "maxItems": 2}},
            }
        ),
        of_json(is_tree),
    ),
    "alternatives": (
        schema({"anyOf": [{"type": "boolean"}, {"const": {"a": 1}}]}),
        of_json(lambda value: value in (True, False, {"a": 1})),
    ),
    "pattern": (
        schema({"type": "string", "pattern": "^[a-c]{3}$"}),
        of_json(lambda value: re.fullmatch("[a-c]{3}", value) is not None),
    ),
    "regex": (Constraint(kind="regex", value=DATE), matches(DATE)),
    "regex beyond ASCII": (Constraint(kind="regex", value="^(é|日|🐭){2,5}x?$"), matches("(é|日|🐭){2,5}x?")),
    "choice": (Constraint(kind="choice", value=CHOICES), lambda text: text in CHOICES),
    "one choice": (Constraint(kind="choice", value=("",)), lambda text: text == ""),
    "lark": (Constraint(kind="grammar", value=ARITHMETIC), matches(r"[0-9()+-]*[0-9)]")),
    "json in a frame": (
        Constraint(kind="json_schema", value='{"type": "boolean"}', frame=FRAME),
        matches(r"no|\((true|false)\)"),
    ),
    "regex in a frame": (Constraint(kind="regex", value="[ab]{2}", frame=FRAME), matches(r"no|\([ab]{2}\)")),
    "choice in a frame": (
        Constraint(kind="choice", value=("é", '"'), frame=FRAME),
        matches(r'no|\((é|")\)'),
    ),
    "lark in a frame": (Constraint(kind="grammar", value=ARITHMETIC, frame=FRAME), matches(r"no|\(.*\)")),
    "gbnf": (Constraint(kind="grammar", value='root ::= "a" root "b" | "c"'), matches("a*cb*")),
}


def unigram_like() -> HubTokenizer:
    """Pieces of words with a mark for the space, and bytes for what no piece has."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["▁", "▁a", "a", "e", "true", "false", '{"', '":', "日", "0", "1", "2", "-0", "▁the", "na"]
    scored = [(piece, -float(index)) for index, piece in enumerate([*pieces, *words])]
    tokenizer = HubTokenizer(models.Unigram(scored, 0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def trained_on_json() -> HubTokenizer:
    """Byte-level, with tokens that span the borders of a grammar's parts."""
    tokenizer = HubTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["</s>", "<|x|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=390,
        special_tokens=special,
        initial_alphabet=alphabet,
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [json.dumps({"name": "é日🐭", "age": 12, "tags": ["a", "b"]}) * 20], trainer
    )
    return tokenizer


TOKENIZERS: dict[str, tuple[Callable[[], HubTokenizer], frozenset[int]]] = {
    "byte-level": (lambda: make_tokenizer().backend_tokenizer, frozenset({0})),
    "byte-level of JSON, two ends": (trained_on_json, frozenset({0, 2})),
    "byte fallback": (sentencepiece_like, frozenset({2})),
    "unigram": (unigram_like, frozenset({2})),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def compiler(request: pytest.FixtureRequest) -> tuple[GrammarCompiler, HubTokenizer, frozenset[int]]:
    make, ends = TOKENIZERS[request.param]
    tokenizer = make()
    return GrammarCompiler(tokenizer.to_str, VOCABULARY, ends), tokenizer, ends


def answers(
    compiler: GrammarCompiler, ends: frozenset[int], constraint: Constraint, seeds: range
) -> list[list[int]]:
    """Of a model that likes all tokens about equally, and ends a little more; its logits are wider still."""
    matchers = {seed: matcher_of(compiler, constraint) for seed in seeds}
    said: dict[int, list[int]] = {seed: [] for seed in seeds}
    params = greedy(1, temperature=1.0, logit_bias=dict.fromkeys(ends, 3.0))
    going = list(seeds)
    for position in range(400):
        rows = [SampleRow(params, seed, position, History(params, ()), matchers[seed]) for seed in going]
        for seed, sampled in zip(going, sample(torch.zeros(len(going), VOCABULARY + 13), rows), strict=True):
            if sampled.token_id not in ends:
                said[seed].append(sampled.token_id)
            matchers[seed].consume(sampled.token_id)
        going = [seed for seed in going if not matchers[seed].finished]
        if not going:
            break
    return [ids for seed, ids in said.items() if seed not in going]


def matcher_of(compiler: GrammarCompiler, constraint: Constraint) -> Matcher:
    grammar: Any = compiler.compile(constraint)
    return grammar.matcher()


@pytest.mark.parametrize("name", CASES)
def test_every_finished_answer_has_the_form(
    compiler: tuple[GrammarCompiler, HubTokenizer, frozenset[int]], name: str
) -> None:
    compile_, tokenizer, ends = compiler
    constraint, is_right = CASES[name]
    finished = answers(compile_, ends, constraint, range(12))
    assert len(finished) >= 6
    for ids in finished:
        text = tokenizer.decode(ids)
        assert is_right(text), text


def test_every_choice_comes_and_each_end_token_ends(
    compiler: tuple[GrammarCompiler, HubTokenizer, frozenset[int]],
) -> None:
    compile_, tokenizer, ends = compiler
    letters = Constraint(kind="choice", value=("a", "ab"))
    finished = answers(compile_, ends, letters, range(60))
    assert {tokenizer.decode(ids) for ids in finished} == {"a", "ab"}
    matcher = matcher_of(compile_, letters)
    (first,) = [token for token in allowed(matcher) if tokenizer.decode([token]) == "a"]
    matcher.consume(first)
    assert ends <= allowed(matcher)


def allowed(matcher: Matcher) -> set[int]:
    return set(allowed_tokens([matcher], VOCABULARY)[0].nonzero().flatten().tolist())


def test_tokens_that_the_tokenizer_does_not_have_never_come(
    compiler: tuple[GrammarCompiler, HubTokenizer, frozenset[int]],
) -> None:
    compile_, tokenizer, ends = compiler
    free = matcher_of(compile_, Constraint(kind="regex", value="(.|\n)*"))
    assert max(allowed(free)) < tokenizer.get_vocab_size()
    special = {tokenizer.token_to_id(token) for token in ("<s>", "<|x|>", "<|user|>")} - {None}
    assert special and allowed(free).isdisjoint(special)
    assert allowed(free) >= ends
    assert not allowed_tokens([free], 100_000)[0, VOCABULARY:].any()


@pytest.fixture(scope="module")
def plain() -> GrammarCompiler:
    make, ends = TOKENIZERS["byte-level"]
    return GrammarCompiler(make().to_str, VOCABULARY, ends)


BAD: list[tuple[ConstraintKind, str | tuple[str, ...], str]] = [
    ("json_schema", "{", "malformed"),
    ("json_schema", "[1]", "object"),
    ("json_schema", '{"type": "king"}', "king"),
    ("json_schema", '{"not": {"type": "string"}}', "not"),
    ("json_schema", '{"$ref": "http://example.com/a.json"}', "example.com"),
    ("json_schema", '{"type": "string", "format": "haiku"}', "haiku"),
    ("json_schema", '{"type": "integer", "minimum": 5, "maximum": 3}', "minimum"),
    ("json_schema", '{"a":' * 3000 + "1" + "}" * 3000, "malformed"),
    (
        "json_schema",
        '{"type": "object", "properties": {"a": false}, "required": ["a"]}',
        "'a' can have no value",
    ),
    ("json_schema", '{"type": "string", "pattern": "^a$", "maxLength": 0}', "no value"),
    ("json_schema", '{"patternProperties": {"^a": {}, "b$": {}}}', "several of its patternProperties"),
    ("json_schema", '{"type": "string", "pattern": "("}', "'(': unclosed group"),
    ("json_schema", '{"type": "string", "pattern": "a^b"}', "^ within"),
    ("regex", "(", "'(': unclosed group"),
    ("regex", r"\bfoo", "words"),
    ("regex", "(?=a)b", "look"),
    ("regex", "a{1000000}", "enforced"),
    ("regex", "x" * 300_000, "longer"),
    ("grammar", "", "malformed"),
    ("grammar", "start: nobody", "line 1: unknown name"),
    ("grammar", 'start: a\na: "x" | nobody', "line 2: unknown name"),
    ("grammar", 'root ::= "a" b', "'b' not found"),
    ("grammar", "start: start", "enforced"),
    ("choice", (), "choose"),
]


@pytest.mark.parametrize(("kind", "value", "word"), BAD)
def test_what_cannot_be_enforced_is_refused_with_a_reason(
    plain: GrammarCompiler, kind: ConstraintKind, value: str | tuple[str, ...], word: str
) -> None:
    with pytest.raises(RequestError) as caught:
        plain.compile(Constraint(kind=kind, value=value))
    message = str(caught.value)
    assert word in message
    assert "\n" not in message and len(message) < 400
    assert not any(inside in message for inside in ("start:", " | ", "Lark", "verbose", "SearchRegex", "(8)"))


def test_a_tokenizer_without_bytes_is_refused() -> None:
    words = HubTokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(RequestError, match="tokenizer"):
        GrammarCompiler(words.to_str, 2, frozenset()).compile(Constraint(kind="json"))


def test_large_schemas_are_served(plain: GrammarCompiler) -> None:
    wide = {f"property{i}": {"type": "string"} for i in range(500)}
    matcher = matcher_of(plain, schema({"type": "object", "properties": wide}))
    tokenizer = make_tokenizer().backend_tokenizer
    for token in tokenizer.encode('{"property7": "x", "property499":', add_special_tokens=False).ids:
        assert token in allowed(matcher)
        matcher.consume(token)


def test_compiling_is_done_once_and_shared_by_threads() -> None:
    read = []

    def tokenizer_json() -> str:
        read.append(threading.get_ident())
        return make_tokenizer().backend_tokenizer.to_str()

    compiler = GrammarCompiler(tokenizer_json, VOCABULARY, frozenset({0}))
    assert not read
    constraints = [Constraint(kind="regex", value=f"a{{{1 + n % 4}}}") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        compiled = list(pool.map(compiler.compile, constraints))
    assert len(read) == 1
    assert [grammar.constraint for grammar in compiled] == constraints
    assert compiler.compile(constraints[0]) is compiler.compile(constraints[0])


def test_a_token_against_the_grammar_is_an_error(plain: GrammarCompiler) -> None:
    matcher = matcher_of(plain, Constraint(kind="regex", value="abc"))
    with pytest.raises(EngineError, match="constraint"):
        matcher.consume(max(allowed(matcher)) + 1)


def test_matchers_of_one_grammar_go_their_own_ways(plain: GrammarCompiler) -> None:
    one, other = (matcher_of(plain, Constraint(kind="regex", value="[ab]c")) for _ in range(2))
    one.consume(min(allowed(one)))
    assert allowed(one).isdisjoint(allowed(other))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bans_and_bias_give_way_to_the_grammar(plain: GrammarCompiler, temperature: float) -> None:
    def chosen(matcher: Matcher, banned: tuple[int, ...], bias: dict[int, float]) -> set[int]:
        params = greedy(1, temperature=temperature, logit_bias=bias)
        rows = [SampleRow(params, 1, at, History(params, ()), matcher, banned) for at in range(50)]
        return {sample(torch.zeros(1, VOCABULARY), [row])[0].token_id for row in rows}

    ended = matcher_of(plain, Constraint(kind="choice", value=("",)))
    assert chosen(ended, (0,), {0: -100.0, 7: 100.0}) == {0}
    open_ended = matcher_of(plain, Constraint(kind="regex", value="a*"))
    letters = allowed(open_ended) - {0}
    assert chosen(open_ended, (0,), {0: 100.0}) <= letters
    assert chosen(open_ended, (0, *letters), {}) <= {0, *letters}


def say(answer: Answer) -> str:
    assert answer.finish_reason == "stop"
    return answer.text


async def test_random_weights_say_what_they_must_before_and_after_sleep(
    llama: Path, awake: OpenEngine
) -> None:
    """With free neighbours in the batch, whom it does not concern."""
    engine = await awake(llama)
    free = await collect(engine, prompt(9), greedy(30))

    async def all_of(seed: int) -> list[str]:
        wanted = {name: engine.compile(constraint) for name, (constraint, _) in CASES.items()}
        sampled = {"temperature": 1.0, "seed": seed, "ignore_eos": False, "logit_bias": {0: 4.0}}
        runs = [collect(engine, prompt(9), greedy(400, grammar=g, **sampled)) for g in wanted.values()]
        found, neighbour = await asyncio.gather(asyncio.gather(*runs), collect(engine, prompt(9), greedy(30)))
        assert neighbour.token_ids == free.token_ids
        for (_, is_right), answer in zip(CASES.values(), found, strict=True):
            assert answer.finish_reason == "length" or is_right(answer.text), answer.text
        assert sum(answer.finish_reason == "stop" for answer in found) >= len(CASES) - 2
        return [answer.text for answer in found]

    before = await all_of(1)
    levels: tuple[Level, ...] = (1, 2)
    for level in levels:
        await engine.sleep(level)
        grammar = engine.compile(schema(PERSON))
        await engine.wake()
        assert engine.compile(schema(PERSON)) is grammar
        assert await all_of(1) == before


async def test_an_answer_ends_where_its_grammar_does(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    grammar = engine.compile(Constraint(kind="regex", value="[0-9]{5}"))
    for overrides in ({}, {"ignore_eos": False}, {"min_tokens": 50, "ignore_eos": False}):
        answer = await collect(engine, prompt(9), greedy(60, grammar=grammar, **overrides))
        assert re.fullmatch("[0-9]{5}", say(answer))
        assert len(answer.token_ids) <= 5
    cut = await collect(engine, prompt(9), greedy(2, grammar=grammar))
    assert cut.finish_reason == "length" and re.fullmatch("[0-9]{2,4}", cut.text)


async def test_choices_of_one_request_each_keep_to_the_grammar(llama: Path, awake: OpenEngine) -> None:
    engine = await awake(llama)
    sampling = greedy(40, grammar=engine.compile(CASES["regex"][0]), temperature=1.0, seed=3)
    texts = [""] * 4
    async for step in engine.generate(GenerateRequest(prompt_ids=prompt(9), sampling=sampling, n=4)):
        for delta in step:
            texts[delta.index] += delta.text
    assert all(re.fullmatch(DATE, text) for text in texts) and len(set(texts)) > 1


async def test_preempted_answers_keep_their_place_in_the_grammar(llama: Path, stepper: OpenStepper) -> None:
    tokenizer = Tokenizer(llama / "tokenizer.json")
    compiler = GrammarCompiler(tokenizer.to_json, tokenizer.size, frozenset({0}))
    expression = "([0-9]x){60}"
    sampling = greedy(200, grammar=compiler.compile(Constraint(kind="regex", value=expression)))
    roomy, tight = stepper(llama), stepper(llama, blocks=12)
    for steps in (roomy, tight):
        for seed in range(3):
            steps.add(prompt(9, seed=seed), sampling)
        steps.run()
        assert all(re.fullmatch(expression, say(answer)) for answer in steps.answers.values())
    computed = [sum(count for step in steps.log for _, count in step) for steps in (roomy, tight)]
    assert computed[1] > computed[0], "none was preempted"


async def test_a_grammar_of_elsewhere_is_refused(llama: Path, awake: OpenEngine) -> None:
    class Foreign:
        constraint = Constraint(kind="json")

    engine = await awake(llama)
    with pytest.raises(RequestError) as caught:
        await collect(engine, prompt(9), greedy(5, grammar=Foreign()))
    assert caught.value.param == "grammar"


def test_a_model_that_is_not_loaded_compiles(llama: Path) -> None:
    cold = seam.open(str(llama), "cpu")
    assert cold.compile(CASES["object"][0]).constraint == CASES["object"][0]
    assert isinstance(cold, TorchEngine) and cold._model is None


DEMOS = sorted((Path(engine_module.__file__).parent / "demo").glob("demo-*"))


@pytest.mark.parametrize("directory", DEMOS, ids=lambda path: path.name)
async def test_the_demo_models_answer_in_form(directory: Path, awake: OpenEngine) -> None:
    engine = await awake(directory)
    ids = engine.encode("How many mice?")
    for name in ("object", "regex", "choice"):
        constraint, is_right = CASES[name]
        sampling = greedy(300, grammar=engine.compile(constraint), temperature=1.0, seed=2, ignore_eos=False)
        assert is_right(say(await collect(engine, ids, sampling)))


def make_bpe() -> HubTokenizer:
    """Not the one that others share."""
    return HubTokenizer.from_str(make_tokenizer().backend_tokenizer.to_str())


@pytest.mark.parametrize("make", [make_bpe, sentencepiece_like])
def test_text_that_spells_a_special_token_is_made_of_others(
    tmp_path: Path, make: Callable[[], HubTokenizer]
) -> None:
    """Where nothing else may come the library asks the tokenizer, which would find the special one."""
    hub = make()
    hub.add_special_tokens(["<|mark|>"])
    hub.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    special = tokenizer.token_id("<|mark|>")
    compiler = GrammarCompiler(tokenizer.to_json, VOCABULARY, frozenset())
    grammar = compiler.compile(Constraint(kind="regex", value=r"a<\|mark\|>"))
    matcher, ids = grammar.matcher(), []  # type: ignore[attr-defined]
    while not matcher.finished:
        ids.append(int(allowed_tokens([matcher], VOCABULARY)[0].nonzero()[-1]))
        matcher.consume(ids[-1])
    assert special not in ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == "a<|mark|>"
    by_id = compiler.compile(Constraint(kind="grammar", value=f"start: <[{special}]>"))
    allowed = allowed_tokens([by_id.matcher()], VOCABULARY)[0]  # type: ignore[attr-defined]
    assert allowed.nonzero().flatten().tolist() == [special]
