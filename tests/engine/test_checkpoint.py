"""Checkpoints that cannot be served are refused clearly, whatever is wrong with them, and run nothing."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import engine
from engine.checkpoint import Checkpoint, read_shard
from engine.models.config import ModelConfig
from engine.types import CheckpointError, EngineOptions
from tests.engine.checkpoints import CHAT_TEMPLATE, make_checkpoint
from tests.engine.conftest import OpenEngine
from tests.engine.harness import edit_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def write_shard(path: Path, header: bytes, data: bytes = b"\0" * 64) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def assert_clear(error: CheckpointError, directory: Path) -> None:
    assert str(directory) not in error.reason
    assert len(error.reason) > 10


# Safetensors headers.


def test_a_good_header_is_what_safetensors_says(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6.0).view(2, 3),
        "b": torch.zeros(3, dtype=torch.bfloat16),
        "c": torch.tensor(5),
    }
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    shard = read_shard(tmp_path / WEIGHTS)
    content = (tmp_path / WEIGHTS).read_bytes()
    assert set(shard.tensors) == set(tensors)
    for name, tensor in tensors.items():
        found = shard.tensors[name]
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert content[found.offset : found.offset + found.nbytes] == raw
        assert found.shape == tuple(tensor.shape)


@given(header=st.binary(max_size=80), claimed=st.none() | st.integers(0, 2**64 - 1))
@settings(max_examples=150)
def test_any_bytes_are_a_shard_or_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, claimed: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.safetensors"
    path.write_bytes(struct.pack("<Q", len(header) if claimed is None else claimed) + header)
    try:
        assert isinstance(read_shard(path).tensors, dict)
    except CheckpointError as error:
        assert_clear(error, path.parent)


entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F4", 3, None]) | junk,
        "shape": st.lists(st.integers(-3, 9) | st.floats(), max_size=3) | junk,
        "data_offsets": st.lists(st.integers(-9, 99), min_size=2, max_size=2) | junk,
    },
)


@given(header=st.dictionaries(st.text(max_size=5), entries | junk, max_size=3) | junk)
@settings(max_examples=300)
def test_any_json_is_a_shard_or_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, header: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "json.safetensors"
    write_shard(path, json.dumps(header).encode())
    try:
        shard = read_shard(path)
    except CheckpointError:
        return
    size = path.stat().st_size
    assert all(8 <= t.offset <= t.offset + t.nbytes <= size for t in shard.tensors.values())


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 17]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [64, 80]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "X1", "shape": [4], "data_offsets": [0, 16]}}',
        b'{"a": ' * 50_000,
        b"[" * 200_000,
        b"\xff\xfe",
    ],
    ids=range(13),
)
def test_a_bad_header_is_a_checkpoint_error(tmp_path: Path, header: bytes) -> None:
    write_shard(tmp_path / WEIGHTS, header)
    with pytest.raises(CheckpointError) as caught:
        read_shard(tmp_path / WEIGHTS)
    assert_clear(caught.value, tmp_path)


# Directories.


def opens(directory: Path) -> None:
    """All that comes before any weight is read, as a gateway does it."""
    made = engine.open(str(directory), "cpu")
    estimate = engine.estimate(str(directory))
    assert estimate is not None
    assert made.footprint().to_wake == estimate.least_bytes


def test_a_good_checkpoint_says_what_it_is(copy: Path) -> None:
    opens(copy)
    info = engine.open(str(copy), "cpu").info
    assert (info.architecture, info.dtype, info.max_model_len) == ("LlamaForCausalLM", "float32", 512)
    assert info.chat_template == CHAT_TEMPLATE
    assert info.special_tokens["eos_token"] == "<|end|>"
    assert info.longest_token_bytes >= len("<|assistant|>")


@pytest.mark.parametrize(
    "escape",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "sub/model.safetensors",
        ".hidden.safetensors",
        "..",
        "",
        "model\0.safetensors",
        3,
        None,
        ["x"],
    ],
)
def test_an_index_may_name_only_files_beside_it(copy: Path, escape: Any) -> None:
    shutil.copy(copy / WEIGHTS, copy.parent / "secret.safetensors")
    (copy / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": escape, "x": WEIGHTS}}))
    with pytest.raises(CheckpointError):
        Checkpoint(copy).read_shards()


@pytest.mark.parametrize("weight_map", [None, [], {}, "model.safetensors", 7])
def test_an_index_without_a_map_is_refused(copy: Path, weight_map: Any) -> None:
    (copy / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError):
        Checkpoint(copy).read_shards()


def test_an_index_that_names_a_missing_file(copy: Path) -> None:
    (copy / INDEX).write_text(json.dumps({"weight_map": {"x": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(CheckpointError, match="model-00002-of-00002"):
        Checkpoint(copy).read_shards()


def test_pickles_are_not_weights(copy: Path) -> None:
    """And are not opened: this one would leave a trace."""
    trace = copy / "trace"
    payload = b"cposix\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR."
    (copy / WEIGHTS).unlink()
    (copy / "pytorch_model.bin").write_bytes(payload)
    with pytest.raises(CheckpointError, match="safetensors"):
        engine.estimate(str(copy))
    (copy / INDEX).write_text(json.dumps({"weight_map": {"x": "pytorch_model.bin"}}))
    with pytest.raises(CheckpointError):
        engine.estimate(str(copy))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_what_cannot_be_missing(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name) as caught:
        opens(copy)
    assert_clear(caught.value, copy)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "chat_template.jinja"])
def test_what_can_be_missing(copy: Path, name: str) -> None:
    (copy / name).unlink()
    opens(copy)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '"x"', "\xff"], ids=range(6))
def test_damaged_json_is_a_checkpoint_error(copy: Path, name: str, content: str) -> None:
    (copy / name).write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError) as caught:
        opens(copy)
    assert name in caught.value.reason
    assert_clear(caught.value, copy)


def test_no_such_directory() -> None:
    for path in ("/no/such/place", "./nothing", "nothing", "a/b/c", "~nobody-here/x", ""):
        with pytest.raises(CheckpointError):
            engine.open(path, "cpu")


# config.json.


def change(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.update(values)


REFUSED: dict[str, dict[str, Any]] = {
    "unknown architecture": {"architectures": ["GPT2LMHeadModel"]},
    "no architecture": {"architectures": None},
    "an architecture that is no list": {"architectures": 5},
    "an unknown rope": {"rope_parameters": {"rope_type": "magic", "factor": 2.0, "rope_theta": 1e4}},
    "an unknown rope, the old way": {"rope_parameters": None, "rope_scaling": {"type": "magic"}},
    "a rope with an endless factor": {"rope_parameters": {"rope_type": "linear", "factor": float("inf")}},
    "a rope by kind of layer": {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
    "a rope for pictures": {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
    "rope factors of another size": {
        "rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}
    },
    "a rope without its factor": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}},
    "a rope that is no object": {"rope_parameters": "linear"},
    "part of the head rotated, under a scaling": {
        "partial_rotary_factor": 0.5,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
    "part of the head rotated, in the new place": {
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}
    },
    "sliding window": {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
    "sliding window, the old way": {"use_sliding_window": True},
    "layer types that are no list": {"layer_types": 5},
    "another activation": {"hidden_act": "relu2"},
    "attention to what comes later": {"use_bidirectional_attention": True},
    "attention sinks": {"attention_sinks": 4},
    "quantised": {"quantization_config": {"quant_method": "fp8"}},
    "no heads": {"num_attention_heads": 0, "head_dim": None},
    "heads that do not divide": {"num_key_value_heads": 4},
    "an odd head size": {"head_dim": 7},
    "a size without end": {"hidden_size": float("inf")},
    "a negative size": {"num_hidden_layers": -1},
    "a size in words": {"hidden_size": "many"},
    "a size that the file does not have": {"intermediate_size": 81},
    "more layers than the file has": {"num_hidden_layers": 4},
    "another dtype": {"dtype": "int8"},
    "a vocabulary that the file does not have": {"vocab_size": 321},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_not_served_is_refused(copy: Path, awake: OpenEngine, name: str) -> None:
    edit_json(copy / "config.json", change(**REFUSED[name]))
    with pytest.raises(CheckpointError) as caught:
        await awake(copy)
    assert_clear(caught.value, copy)


@given(key=st.sampled_from(["rope_parameters", "rope_scaling", "architectures", "layer_types"]), value=junk)
@settings(max_examples=150)
def test_junk_in_a_config_is_served_by_default_or_refused(key: str, value: Any) -> None:
    config: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "vocab_size": 9}
    config |= dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers"), 8)
    config |= {"num_attention_heads": 2, key: value}
    try:
        assert isinstance(ModelConfig.parse(config), ModelConfig)
    except CheckpointError as error:
        assert error.reason


async def test_a_tensor_that_is_missing_or_of_another_kind(copy: Path, awake: OpenEngine) -> None:
    tensors = load_file(copy / WEIGHTS)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, copy / WEIGHTS)
    with pytest.raises(CheckpointError, match=name):
        await awake(copy)
    save_file(tensors | {name: tensors[name].to(torch.int8)}, copy / WEIGHTS)
    with pytest.raises(CheckpointError, match="I8"):
        await awake(copy)
    save_file(tensors | {"left.over": torch.zeros(3)}, copy / WEIGHTS)
    await awake(copy)


def test_max_model_len_and_dtype_must_be_what_the_model_can_do(llama: Path) -> None:
    with pytest.raises(CheckpointError, match="positions"):
        engine.open(str(llama), "cpu", EngineOptions(max_model_len=513))
    with pytest.raises(engine.EngineError, match="device"):
        engine.open(str(llama), "tpu")


# Templates, special tokens, defaults.


def test_where_a_template_may_be(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    settings_file = copy / "tokenizer_config.json"
    edit_json(settings_file, lambda c: c.pop("chat_template", None))
    assert Checkpoint(copy).chat_template() is None
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": "from json"}))
    assert Checkpoint(copy).chat_template() == "from json"
    edit_json(settings_file, change(chat_template="a string"))
    assert Checkpoint(copy).chat_template() == "a string"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}]
    edit_json(settings_file, change(chat_template=named))
    assert Checkpoint(copy).chat_template() == "named"
    edit_json(settings_file, change(chat_template=["junk", 3]))
    assert Checkpoint(copy).chat_template() is None
    (copy / "chat_template.jinja").write_text("the file")
    assert Checkpoint(copy).chat_template() == "the file"


def test_special_tokens_in_either_spelling(copy: Path) -> None:
    (copy / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": {"content": "<s>", "lstrip": False}})
    )
    edit_json(copy / "tokenizer_config.json", change(eos_token={"content": "<|end|>"}, pad_token=None))
    tokens = Checkpoint(copy).special_tokens()
    assert (tokens["bos_token"], tokens["eos_token"]) == ("<s>", "<|end|>")
    assert "pad_token" not in tokens


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        ({}, {}),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
        (
            {"do_sample": False, "repetition_penalty": 1.1},
            {"temperature": 0.0, "repetition_penalty": 1.1},
        ),
        ({"repetition_penalty": 0}, {}),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9},
            {"temperature": 0.6, "top_k": 20, "top_p": 0.9},
        ),
        ({"temperature": None, "min_p": 0.1}, {"min_p": 0.1}),
        ({"temperature": "hot", "top_k": True}, {}),
    ],
)
def test_sampling_defaults(copy: Path, given_: dict[str, Any], meant: dict[str, float]) -> None:
    (copy / "generation_config.json").write_text(json.dumps(given_))
    assert dict(engine.open(str(copy), "cpu").info.sampling_defaults) == meant


@pytest.mark.parametrize("eos", [None, "x", ["x", None], {"a": 1}, [10**9, -3]])
def test_junk_for_an_end_token_ends_nothing(copy: Path, eos: Any) -> None:
    edit_json(copy / "generation_config.json", change(eos_token_id=eos))
    edit_json(copy / "config.json", change(eos_token_id=None))
    assert engine.open(str(copy), "cpu")._eos == {0}  # type: ignore[attr-defined]


def test_the_estimate_follows_the_served_dtype(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, "qwen3", torch.bfloat16)
    half, whole = (engine.estimate(str(directory), EngineOptions(dtype=d)) for d in ("auto", "float32"))
    assert half
    assert whole
    assert whole.weights_bytes == 2 * half.weights_bytes
    assert whole.kv_bytes_per_token == 2 * half.kv_bytes_per_token == 2 * 3 * 2 * 20 * 4
