"""A model's parameters, and the checkpoint tensors that each is stacked from.

No torch in here: an estimate needs none.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.models.config import ModelConfig
from engine.models.encoder_config import EncoderConfig
from engine.models.encoder_parameters import encoder_parameters
from engine.models.experts_config import ExpertsConfig
from engine.parameter import Parameter
from engine.sentence import SentenceConfig


def model_parameters(config: ModelConfig | EncoderConfig) -> list[Parameter]:
    """All of them, in the order of use, those of the layers behind the pooling last."""
    found = encoder_parameters(config) if isinstance(config, EncoderConfig) else decoder_parameters(config)
    return found + (dense_parameters(config.sentence) if config.sentence else [])


def decoder_parameters(config: ModelConfig) -> list[Parameter]:
    """All of them, in the order of use."""
    matrix = (config.vocab_size, config.hidden_size)
    found = [_single("embed.weight", "model.embed_tokens.weight", matrix)]
    for index in range(config.num_layers):
        found += layer_parameters(config, index, f"model.layers.{index}.")
    found.append(_single("norm", "model.norm.weight", (config.hidden_size,)))
    if config.has_head and not config.tied_embeddings:
        found.append(_single("head.weight", "lm_head.weight", matrix))
    return found


def dense_parameters(config: SentenceConfig) -> list[Parameter]:
    found = []
    for layer in config.dense:
        source = f"{layer.folder}/linear"
        shape = (layer.outputs, layer.inputs)
        found.append(Parameter(f"{layer.folder}.weight", ((f"{source}.weight", shape),)))
        if layer.bias:
            found.append(Parameter(f"{layer.folder}.bias", ((f"{source}.bias", shape[:1]),)))
    return found


def layer_parameters(config: ModelConfig, index: int, theirs: str) -> Iterator[Parameter]:
    """``theirs``: what the layer's tensors begin with in the files."""
    ours, norms, hidden = f"{index}.", config.family.norms, (config.hidden_size,)
    yield from _norm(ours + "before_attention", theirs, norms.before_attention, hidden)
    yield from attention_parameters(config, ours, theirs + "self_attn.")
    yield from _norm(ours + "after_attention", theirs, norms.after_attention, hidden)
    yield from _norm(ours + "before_mlp", theirs, norms.before_mlp, hidden)
    if config.experts and config.layers[index].sparse:
        yield from expert_parameters(config, config.experts, ours, theirs)
    else:
        yield from mlp_parameters(config, index, theirs)
    yield from _norm(ours + "after_mlp", theirs, norms.after_mlp, hidden)


def attention_parameters(config: ModelConfig, ours: str, theirs: str) -> Iterator[Parameter]:
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    rows = {"qkv_proj": q + 2 * kv} if config.family.fused else {"q_proj": q, "k_proj": kv, "v_proj": kv}
    yield from _linear(ours + "qkv", theirs, rows, config.hidden_size, config.qkv_bias)
    yield from _linear(ours + "o", theirs, {"o_proj": config.hidden_size}, q, config.output_bias)
    if config.family.qk_norm:
        whole = config.family.qk_norm == "projection"
        yield _single(ours + "q_norm", theirs + "q_norm.weight", (q if whole else config.head_dim,))
        yield _single(ours + "k_norm", theirs + "k_norm.weight", (kv if whole else config.head_dim,))


def mlp_parameters(config: ModelConfig, index: int, theirs: str) -> Iterator[Parameter]:
    ours, theirs, inner = f"{index}.", theirs + "mlp.", config.intermediate_size
    rows = {"gate_up_proj": 2 * inner} if config.family.fused else {"gate_proj": inner, "up_proj": inner}
    yield from _linear(ours + "gate_up", theirs, rows, config.hidden_size, config.mlp_bias)
    yield from _linear(ours + "down", theirs, {"down_proj": config.hidden_size}, inner, config.mlp_bias)


def expert_parameters(
    config: ModelConfig, experts: ExpertsConfig, ours: str, theirs: str
) -> Iterator[Parameter]:
    names, hidden, inner = config.family.experts, config.hidden_size, experts.inner_size
    block = theirs + names.block
    yield from _linear(ours + "router", block, {"gate": experts.count}, hidden, bias=False)
    for index in range(experts.count):
        mine, its = f"{ours}experts.{index}.", f"{block}experts.{index}."
        rows = {names.gate: inner, names.up: inner}
        yield from _linear(mine + "gate_up", its, rows, hidden, bias=False)
        yield from _linear(mine + "down", its, {names.down: hidden}, inner, bias=False)
    if shared := experts.shared_size:
        mine, its = f"{ours}shared.", f"{block}shared_expert."
        rows = {names.gate: shared, names.up: shared}
        yield from _linear(f"{ours}shared_share", block, {"shared_expert_gate": 1}, hidden, bias=False)
        yield from _linear(mine + "gate_up", its, rows, hidden, bias=False)
        yield from _linear(mine + "down", its, {names.down: hidden}, shared, bias=False)


def _linear(ours: str, theirs: str, rows: dict[str, int], columns: int, bias: bool) -> Iterator[Parameter]:
    """A matrix, and its bias if there is one, stacked from tensors of so many rows."""
    yield Parameter(ours + ".weight", tuple((f"{theirs}{n}.weight", (r, columns)) for n, r in rows.items()))
    if bias:
        yield Parameter(ours + ".bias", tuple((f"{theirs}{n}.bias", (r,)) for n, r in rows.items()))


def _norm(ours: str, layer: str, theirs: str | None, shape: tuple[int, ...]) -> Iterator[Parameter]:
    if theirs:
        yield _single(ours, f"{layer}{theirs}.weight", shape)


def _single(name: str, source: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(name, ((source, shape),))
