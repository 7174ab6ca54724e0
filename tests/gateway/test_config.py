from __future__ import annotations

from gateway.config import ModelConfig, Size, name_clash


def model(name: str, *aliases: str) -> ModelConfig:
    return ModelConfig(name=name, path="owner/name", aliases=aliases)


def test_a_size_is_bytes_or_a_share_and_never_more_than_the_whole() -> None:
    assert Size(bytes=100).of(1000) == 100
    assert Size(bytes=2000).of(1000) == 1000
    assert Size(share=0.8).of(1000) == 800


def test_names_and_aliases_stand_for_one_model_each() -> None:
    assert name_clash([model("a", "x"), model("b", "y")]) is None
    assert name_clash([model("a"), model("a")]) == ("models.a", "there are two models of this name")


def test_an_alias_may_not_be_any_model_s_name_nor_another_s_alias() -> None:
    for models in (
        [model("a", "a")],
        [model("a", "b"), model("b")],
        [model("a", "x"), model("b", "x")],
        [model("a", "x", "x")],
    ):
        clash = name_clash(models)
        assert clash is not None
        assert clash[0] == f"models.{models[-1].name if 'x' in models[-1].aliases else 'a'}.aliases"


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
