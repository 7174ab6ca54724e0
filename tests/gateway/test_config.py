from __future__ import annotations

import pytest

from gateway.config import ModelConfig, Size, name_mistakes


def model(name: str, *aliases: str) -> ModelConfig:
    return ModelConfig(name=name, path="owner/name", aliases=aliases)


def test_a_size_is_bytes_or_a_share_and_never_more_than_the_whole() -> None:
    assert Size(bytes=100).of(1000) == 100
    assert Size(bytes=2000).of(1000) == 1000
    assert Size(share=0.8).of(1000) == 800


def mistakes(*models: ModelConfig) -> list[tuple[str, str]]:
    return list(name_mistakes(models))


def test_names_and_aliases_stand_for_one_model_each() -> None:
    assert mistakes(model("a", "x"), model("b", "y")) == []
    assert mistakes(model("a"), model("a")) == [("models.a", "there are two models of this name")]


@pytest.mark.parametrize(
    "models",
    [
        [model("a", "a")],
        [model("a", "b"), model("b")],
        [model("a", "x"), model("b", "x")],
        [model("a", "x", "x")],
    ],
)
def test_an_alias_may_not_be_any_model_s_name_nor_another_s_alias(models: list[ModelConfig]) -> None:
    ((place, _),) = mistakes(*models)
    assert place == f"models.{models[-1].name if 'x' in models[-1].aliases else 'a'}.aliases"


@pytest.mark.parametrize("name", ["red\x1b[31m", "two\nlines", "c1\x9b", "\u202eback", "\udcff"])
def test_a_name_can_be_shown(name: str) -> None:
    assert mistakes(model("m\u00fcller/睡鼠 \N{MOUSE FACE}", "a b")) == []
    ((place, what),) = mistakes(model(name, "fine"))
    assert place == f"models.{name}" and repr(name) in what
    ((place, what),) = mistakes(model("fine", "good", name))
    assert place == "models.fine.aliases" and repr(name) in what


def test_engine_options_carry_what_the_engine_is_to_know() -> None:
    options = ModelConfig(
        name="a", path="o/n", dtype="float32", max_model_len=512, max_running=3, revision="v1"
    ).engine_options()
    assert (options.dtype, options.max_model_len, options.max_running, options.revision) == (
        "float32",
        512,
        3,
        "v1",
    )
