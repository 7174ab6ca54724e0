"""The families of checkpoints that the decoder serves: one short entry each.

To add a family whose layers are those of the decoder, add an entry that says where it differs, and what
its config.json may leave out.
"""

from __future__ import annotations

from typing import Any, Final

from engine.models import layer_types
from engine.models.experts_config import MIXTRAL_EXPERTS
from engine.models.family import POST_NORMS, SANDWICH_NORMS, Family

# What the defaults of several families have in common.
_COMMON: Final[dict[str, Any]] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}
_BIASED: Final = dict(_COMMON, attention_bias=False, mlp_bias=False)
_MISTRAL: Final = dict(
    _COMMON,
    intermediate_size=14_336,
    num_key_value_heads=8,
    max_position_embeddings=131_072,
    sliding_window=4096,
    layer_types=None,
)
_QWEN: Final = dict(
    _COMMON,
    vocab_size=151_936,
    max_position_embeddings=32_768,
    use_sliding_window=False,
    sliding_window=4096,
)
_DENSE_QWEN: Final = dict(
    _QWEN, intermediate_size=22_016, num_key_value_heads=32, max_window_layers=28, layer_types=None
)
_SPARSE_QWEN: Final = dict(
    _QWEN,
    hidden_size=2048,
    intermediate_size=6144,
    num_hidden_layers=24,
    num_key_value_heads=4,
    decoder_sparse_step=1,
    mlp_only_layers=None,
    moe_intermediate_size=768,
    num_experts=128,
    num_local_experts=None,
    num_experts_per_tok=8,
    norm_topk_prob=False,
)
_GEMMA: Final = dict(
    _COMMON,
    vocab_size=256_000,
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=256,
    hidden_activation="gelu_pytorch_tanh",
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    attention_bias=False,
    query_pre_attn_scalar=256,
    sliding_window=4096,
    layer_types=None,
)

LLAMA = Family(name="llama", defaults=_BIASED)
MISTRAL = Family(name="mistral", layer_types=layer_types.all_alike, defaults=_MISTRAL)
QWEN2 = Family(name="qwen2", qkv_bias=True, layer_types=layer_types.upper, defaults=_DENSE_QWEN)
QWEN3 = Family(
    name="qwen3",
    qk_norm="head",
    layer_types=layer_types.upper,
    defaults=dict(_DENSE_QWEN, head_dim=128, attention_bias=False),
)
GEMMA2 = Family(
    name="gemma2",
    norms=SANDWICH_NORMS,
    norm_weight="one_plus",
    scaled_embeddings=True,
    layer_types=layer_types.every_other,
    defaults=dict(_GEMMA, final_logit_softcapping=30.0, attn_logit_softcapping=50.0),
)
GEMMA3 = Family(
    name="gemma3_text",
    norms=SANDWICH_NORMS,
    norm_weight="one_plus",
    qk_norm="head",
    scaled_embeddings=True,
    local_rope_theta=10_000.0,
    layer_types=layer_types.pattern,
    defaults=dict(
        _GEMMA,
        vocab_size=262_208,
        max_position_embeddings=131_072,
        rope_theta=1_000_000.0,
        sliding_window_pattern=6,
        final_logit_softcapping=None,
    ),
)
PHI3 = Family(
    name="phi3",
    fused=True,
    partial_rope=True,
    rope_names={"su": "longrope", "yarn": "longrope"},
    layer_types=layer_types.all_alike,
    defaults=dict(
        _COMMON,
        vocab_size=32_064,
        hidden_size=3072,
        intermediate_size=8192,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        sliding_window=None,
        layer_types=None,
    ),
)
OLMO2 = Family(
    name="olmo2",
    norms=POST_NORMS,
    norm_weight="wide",
    qk_norm="projection",
    wide_rope=True,
    defaults=dict(_COMMON, vocab_size=50_304, rms_norm_eps=1e-5, attention_bias=False),
)
GRANITE = Family(
    name="granite",
    defaults=dict(
        _BIASED,
        embedding_multiplier=1.0,
        attention_multiplier=1.0,
        residual_multiplier=1.0,
        logits_scaling=1.0,
    ),
)
SMOLLM3 = Family(
    name="smollm3",
    layer_types=layer_types.without_rope,
    defaults=dict(
        _BIASED,
        vocab_size=128_256,
        hidden_size=2048,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        rope_theta=2_000_000.0,
        tie_word_embeddings=True,
        use_sliding_window=False,
        sliding_window=None,
        no_rope_layers=None,
        no_rope_layer_interval=4,
        layer_types=None,
    ),
)
MIXTRAL = Family(
    name="mixtral",
    experts=MIXTRAL_EXPERTS,
    layer_types=layer_types.all_alike,
    defaults=dict(
        _MISTRAL,
        rms_norm_eps=1e-5,
        rope_theta=1_000_000.0,
        sliding_window=None,
        num_experts=8,
        num_local_experts=None,
        num_experts_per_tok=2,
    ),
)
QWEN2_MOE = Family(
    name="qwen2_moe",
    layer_types=layer_types.alternating,
    defaults=dict(
        _SPARSE_QWEN,
        intermediate_size=5632,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_window_layers=28,
        layer_types=None,
        qkv_bias=True,
        moe_intermediate_size=1408,
        shared_expert_intermediate_size=5632,
        num_experts_per_tok=4,
        num_experts=60,
    ),
)
QWEN3_MOE = Family(
    name="qwen3_moe",
    qk_norm="head",
    layer_types=layer_types.all_if_used,
    defaults=dict(_SPARSE_QWEN, attention_bias=False),
)

FAMILIES = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": MISTRAL,
    "Qwen2ForCausalLM": QWEN2,
    "Qwen3ForCausalLM": QWEN3,
    "Gemma2ForCausalLM": GEMMA2,
    "Gemma3ForCausalLM": GEMMA3,
    "Phi3ForCausalLM": PHI3,
    "Olmo2ForCausalLM": OLMO2,
    "GraniteForCausalLM": GRANITE,
    "SmolLM3ForCausalLM": SMOLLM3,
    "MixtralForCausalLM": MIXTRAL,
    "Qwen2MoeForCausalLM": QWEN2_MOE,
    "Qwen3MoeForCausalLM": QWEN3_MOE,
}
HEADLESS = {
    name.replace("ForCausalLM", "Model"): family for name, family in FAMILIES.items() if family is not GEMMA3
} | {"Gemma3TextModel": GEMMA3}
"""The same without a language head: hidden states are all that they can give."""
WRAPPERS = {
    "Gemma3ForConditionalGeneration": GEMMA3,
    "Mistral3ForConditionalGeneration": MISTRAL,
    "LlavaForConditionalGeneration": LLAMA,
}
"""Models that see: their text model is served, of this family where its config names none."""
