"""Our encoders' vectors are those of transformers, for every family, dialect and way of pooling."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu, normalize

import engine
from engine import hub
from engine.engine import TorchEngine
from engine.linear import Linear
from engine.types import CheckpointError, Level
from tests.engine.conftest import OpenEngine
from tests.engine.encoders import make_encoder, minilm, reference, reference_hidden, write_modules
from tests.engine.harness import edit_json, prompt, until

TEXTS = [
    "a",
    "The dormouse sleeps all winter.",
    "Tea at six.",
    "naïve café 日本語 🐭 " * 20,
    "word " * 180,
    "The dormouse sleeps all winter.",
]
LENGTHS = (1, 2, 17, 64, 130, 197, 17)


def tensor(vectors: Sequence[array[float]]) -> torch.Tensor:
    return torch.tensor([vector.tolist() for vector in vectors])


def mean_vectors(directory: Path, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean pooling and normalisation over transformers' hidden states."""
    return torch.stack([normalize(reference_hidden(directory, ids).mean(0), dim=0) for ids in inputs])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


@pytest.mark.parametrize("level", [None, 1, 2])
async def test_all_minilm_is_transformers(awake: OpenEngine, level: Level | None) -> None:
    made = await awake(minilm())
    inputs = [made.encode(text) for text in TEXTS]
    assert inputs[0][0] == made.encode("")[0], "a [CLS] token"
    expected = mean_vectors(minilm(), inputs)
    assert expected[0] @ expected[1] < 0.5, "vectors this alike would hide any fault"
    if level:
        before = await made.embed(inputs)
        await made.sleep(level)
        await made.wake()
        assert await made.embed(inputs) == before, "not the same bits after a sleep"
    assert difference(tensor(await made.embed(inputs)), expected) < 1e-5
    for ids, row in zip(inputs, expected, strict=True):
        assert difference(tensor(await made.embed([ids]))[0], row) < 1e-5


async def test_neighbours_change_nothing(awake: OpenEngine) -> None:
    made = await awake(minilm())
    inputs = [made.encode(text) for text in TEXTS]
    together = tensor(await made.embed(inputs))
    alone = torch.cat([tensor(await made.embed([ids])) for ids in inputs])
    assert difference(together, alone) < 1e-6
    assert difference(together[1], together[-1]) < 1e-6, "one text, two places in the batch"


FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {"type_vocab_size": 3},
    "Roberta": {"pad_token_id": 3},
    "XLMRoberta": {"type_vocab_size": 1},
    "DistilBert": {},
    "MPNet": {},
    "Bert-tanh": {"hidden_act": "gelu_new"},
    "Bert-relu": {"hidden_act": "relu", "num_attention_heads": 16},
}


@pytest.mark.parametrize("name", FAMILIES)
async def test_every_family(tmp_path: Path, awake: OpenEngine, name: str) -> None:
    directory = make_encoder(tmp_path, name.partition("-")[0], **FAMILIES[name])
    made = await awake(directory)
    inputs = [prompt(min(length, made.info.max_model_len), seed=length) for length in LENGTHS]
    assert difference(tensor(await made.embed(inputs)), mean_vectors(directory, inputs)) < 1e-5


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "MPNet"])
async def test_bfloat16_is_as_near_as_the_reference_is_to_itself(
    tmp_path: Path, awake: OpenEngine, family: str
) -> None:
    directory = make_encoder(tmp_path, family, torch.bfloat16)
    made = await awake(directory)
    inputs = [prompt(length, seed=length) for length in (5, 40, 150)]

    def vectors(dtype: torch.dtype, attention: str) -> torch.Tensor:
        hidden = (reference_hidden(directory, ids, dtype, attention) for ids in inputs)
        return torch.stack([normalize(rows.mean(0), dim=0) for rows in hidden])

    exact = vectors(torch.float32, "eager")
    theirs = (vectors(torch.bfloat16, "eager") - exact).abs()
    ours = (tensor(await made.embed(inputs)) - exact).abs()
    assert ours.mean() <= 1.5 * theirs.mean()
    assert ours.max() <= 2 * theirs.max()


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "MPNet"])
async def test_a_masked_language_models_prefix_and_head_are_left_out(
    tmp_path: Path, awake: OpenEngine, family: str
) -> None:
    directory = make_encoder(tmp_path, family, head="ForMaskedLM")
    made = await awake(directory)
    ids = prompt(50)
    assert difference(tensor(await made.embed([ids])), mean_vectors(directory, [ids])) < 1e-5


async def test_norms_as_old_files_name_them(tmp_path: Path, awake: OpenEngine) -> None:
    directory = make_encoder(tmp_path)
    ids = prompt(50)
    expected = mean_vectors(directory, [ids])
    file = directory / "model.safetensors"
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in load_file(file).items()
    }
    save_file(tensors, file)
    assert difference(tensor(await (await awake(directory)).embed([ids])), expected) < 1e-5


def weighted_mean(hidden: torch.Tensor) -> torch.Tensor:
    weights = torch.arange(1.0, len(hidden) + 1)[:, None]
    return (weights * hidden).sum(0) / weights.sum()


POOLINGS: dict[str, Any] = {
    "cls": lambda hidden: hidden[0],
    "max": lambda hidden: hidden.max(dim=0).values,
    "mean": lambda hidden: hidden.mean(0),
    "mean_sqrt_len_tokens": lambda hidden: hidden.sum(0) / len(hidden) ** 0.5,
    "weightedmean": weighted_mean,
    "lasttoken": lambda hidden: hidden[-1],
}
OLD_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@pytest.mark.parametrize("dialect", ["old", "new"])
@pytest.mark.parametrize(
    "modes", [[mode] for mode in POOLINGS] + [["cls", "mean", "lasttoken"]], ids="+".join
)
async def test_pooling_as_the_files_say(
    tmp_path: Path, awake: OpenEngine, modes: list[str], dialect: str
) -> None:
    directory = make_encoder(tmp_path)
    flags = {flag: mode in modes for mode, flag in OLD_FLAGS.items()}
    new = {"pooling_mode": modes[0] if len(modes) == 1 else modes}
    write_modules(directory, ("Pooling", flags if dialect == "old" else new))
    made = await awake(directory)
    ids = prompt(30)
    hidden = reference_hidden(directory, ids)
    expected = torch.cat([POOLINGS[mode](hidden) for mode in modes])
    assert made.info.embedding_size == len(expected)
    assert expected.norm() > 1.5, "normalised would look the same"
    assert difference(tensor(await made.embed([ids]))[0], expected) < 1e-4


async def test_dense_layers_and_normalisation(tmp_path: Path, awake: OpenEngine) -> None:
    directory = make_encoder(tmp_path)
    torch.manual_seed(1)
    first, bias, second = torch.randn(32, 48), torch.randn(32), torch.randn(20, 32)
    module = "torch.nn.modules."
    write_modules(
        directory,
        ("Pooling", {"pooling_mode": "mean"}),
        ("Dense", {"in_features": 48, "out_features": 32, "activation_function": module + "activation.GELU"}),
        (
            "Dense",
            {
                "in_features": 32,
                "out_features": 20,
                "bias": False,
                "activation_function": module + "linear.Identity",
            },
        ),
        ("Normalize", {}),
    )
    save_file({"linear.weight": first, "linear.bias": bias}, directory / "2_Dense" / "model.safetensors")
    save_file({"linear.weight": second}, directory / "3_Dense" / "model.safetensors")
    made = await awake(directory)
    ids = prompt(30)
    pooled = reference_hidden(directory, ids).mean(0)
    expected = normalize(second @ gelu(first @ pooled + bias), dim=0)
    assert made.info.embedding_size == 20
    assert difference(tensor(await made.embed([ids]))[0], expected) < 1e-5


POOLING = ("Pooling", {"pooling_mode": "mean"})


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        ([("Pooling", {"pooling_mode": "attention"})], "attention"),
        ([], "Transformer in this order"),
        ([("Normalize", {}), POOLING], "Normalize, Pooling"),
        ([POOLING, ("LayerNorm", {})], "LayerNorm"),
        (
            [POOLING, ("Dense", {"in_features": 48, "out_features": 8, "activation_function": "x.Mish"})],
            "Mish",
        ),
        ([POOLING, ("Dense", {"in_features": 48})], "2_Dense"),
        ([POOLING, ("Dense", {"in_features": 48, "out_features": 8, "use_residual": True})], "use_residual"),
        (
            [POOLING, ("Dense", {"in_features": 48, "out_features": 8, "module_input_name": "token"})],
            "module_input_name",
        ),
    ],
)
def test_what_is_not_served_is_refused_by_name(tmp_path: Path, modules: list[Any], named: str) -> None:
    directory = make_encoder(tmp_path)
    write_modules(directory, *modules)
    for ask in (engine.estimate, engine.open):
        with pytest.raises(CheckpointError, match=named) as caught:
            ask(str(directory))
        assert str(tmp_path) not in caught.value.reason


@pytest.mark.parametrize("folder", ["../1_Pooling", "/etc", "1_Pooling/.."])
def test_no_file_outside_the_checkpoint_is_read(tmp_path: Path, folder: str) -> None:
    directory = make_encoder(tmp_path)
    write_modules(directory, POOLING)
    modules = json.loads((directory / "modules.json").read_text())
    modules[1]["path"] = folder
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="no folder of a module"):
        engine.open(str(directory))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("hidden_act", "mish"),
        ("quantization_config", {"bits": 4}),
        ("num_attention_heads", 7),
        ("hidden_size", "many"),
        ("vocab_size", None),
    ],
)
def test_a_config_that_would_give_wrong_numbers_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    directory = make_encoder(tmp_path)
    edit_json(directory / "config.json", lambda config: config.update({key: value}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        engine.open(str(directory))


def test_an_unknown_architecture_is_told_the_known_ones(tmp_path: Path) -> None:
    directory = make_encoder(tmp_path)
    edit_json(directory / "config.json", lambda config: config.update(architectures=["RhinoModel"]))
    with pytest.raises(CheckpointError, match=r"RhinoModel.*LlamaForCausalLM.*BertModel"):
        engine.open(str(directory))


@pytest.mark.parametrize(
    ("family", "overrides", "longest"),
    [("Bert", {}, 200), ("Roberta", {"pad_token_id": 1}, 198), ("Roberta", {"pad_token_id": 2}, 197)],
)
async def test_the_longest_input(
    tmp_path: Path, awake: OpenEngine, family: str, overrides: dict[str, Any], longest: int
) -> None:
    directory = make_encoder(tmp_path, family, **overrides)
    made = await awake(directory)
    assert made.info.max_model_len == longest
    ids = prompt(longest)
    assert difference(tensor(await made.embed([ids])), mean_vectors(directory, [ids])) < 1e-5
    edit_json(directory / "tokenizer_config.json", lambda config: config.update(model_max_length=80))
    write_modules(directory, POOLING, max_seq_length=64)
    assert engine.open(str(directory)).info.max_model_len == 64
    write_modules(directory, POOLING)
    assert engine.open(str(directory)).info.max_model_len == 80


def test_a_hub_repositorys_modules_are_fetched_too() -> None:
    small = ["modules.json", "sentence_bert_config.json", "1_Pooling/config.json", "2_Dense/config.json"]
    weights = ["model.safetensors", "2_Dense/model.safetensors"]
    others = ["onnx/model.onnx", "openvino/config.json", "original/model.safetensors", "2_Dense/a/b.json"]
    files = [*small, *weights, *others, "2_Dense/pytorch_model.bin"]
    for wanted, patterns in ((small, hub._SMALL), (weights, hub._WEIGHTS)):
        found = filter_repo_objects(files, allow_patterns=patterns, ignore_patterns=hub._ELSEWHERE)
        assert list(found) == wanted


def test_texts_are_lowercased_where_the_files_say_so(tmp_path: Path) -> None:
    directory = make_encoder(tmp_path)
    write_modules(directory, POOLING)
    plain = engine.open(str(directory))
    write_modules(directory, POOLING, do_lower_case=True)
    lower = engine.open(str(directory))
    assert plain.encode("TEA") != plain.encode("tea") == lower.encode("TEA")


def test_an_estimate_needs_headers_only(tmp_path: Path) -> None:
    estimate = engine.estimate(str(minilm()))
    assert estimate is not None
    assert (estimate.architecture, estimate.kv_bytes_per_token) == ("BertModel", 0)
    assert abs(estimate.weights_bytes - (minilm() / "model.safetensors").stat().st_size) < 20_000


async def test_packed_matrices_give_the_same_vectors(
    tmp_path: Path, awake: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_encoder(tmp_path, dtype=torch.bfloat16, hidden_size=64, intermediate_size=128)
    inputs = [prompt(length, seed=length) for length in LENGTHS]
    with monkeypatch.context() as patched:
        patched.setattr(Linear, "packable", False)
        plain = await (await awake(directory)).embed(inputs)
    made = await awake(directory)
    if not Linear(torch.ones(64, 64, dtype=torch.bfloat16)).packable:
        pytest.skip("this CPU packs nothing")
    weights = made._model.weights  # type: ignore[union-attr]
    await until(lambda: made.footprint().packed == sum(w.nbytes for w in matrices(weights.views())))
    assert await made.embed(inputs) == plain
    await made.sleep(2)
    assert made.footprint().packed == 0
    await made.wake()
    assert await made.embed(inputs) == plain


def matrices(views: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [view for name, view in views.items() if name.endswith(".weight") and view.ndim == 2]


async def test_new_weights_are_adopted(tmp_path: Path, awake: OpenEngine) -> None:
    directory = make_encoder(tmp_path)
    write_modules(directory, POOLING, ("Dense", {"in_features": 48, "out_features": 5, "bias": False}))
    dense = directory / "2_Dense" / "model.safetensors"
    save_file({"linear.weight": torch.ones(5, 48)}, dense)
    made = await awake(directory)
    before = tensor(await made.embed([prompt(9)]))
    save_file({"linear.weight": -torch.ones(5, 48)}, dense)
    await made.reload_weights()
    assert torch.allclose(tensor(await made.embed([prompt(9)])), -before, atol=1e-6)
    await made.reset_prefix_cache()
    await made.sleep(2)
    save_file({"linear.weight": torch.zeros(5, 48)}, dense)
    with pytest.raises(CheckpointError):
        await made.wake()


async def test_info_and_footprint(awake: OpenEngine) -> None:
    made: TorchEngine = await awake(minilm())
    info = made.info
    assert (info.kind, info.embedding_size, info.matryoshka, info.max_model_len) == ("embed", 384, False, 256)
    full = made.footprint()
    assert (full.kv, full.host_copy) == (0, 0) and full.weights > 80 * 2**20
    assert await made.trim_kv() == 0
    await made.sleep(1)
    assert made.footprint().host_copy == full.weights
    await made.sleep(2)
    asleep = made.footprint()
    assert (asleep.device, asleep.host_copy) == (0, 0)
    assert asleep.to_wake == full.weights
    reference.cache_clear()
