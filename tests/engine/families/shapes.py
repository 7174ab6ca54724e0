"""Tiny models of every family, with settings that bite on prompts of a hundred tokens."""

from __future__ import annotations

from typing import Any

YARN = {"rope_type": "yarn", "rope_theta": 900.0, "factor": 4.0, "original_max_position_embeddings": 40}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 300.0,
    "short_factor": [1.0, 1.2, 1.5],
    "long_factor": [1.1, 2.0, 7.0],
    "original_max_position_embeddings": 48,
    "partial_rotary_factor": 0.75,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 700.0, "factor": 3.0}
LOCAL = {"rope_type": "default", "rope_theta": 50.0}
WINDOW = {"use_sliding_window": True, "sliding_window": 20}
EXPERTS = {"num_experts": 9, "num_experts_per_tok": 3, "moe_intermediate_size": 32}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-llama3": ("llama", {"rope_parameters": LLAMA3, "head_dim": 14, "attention_bias": True}),
    "llama-linear": ("llama", {"rope_parameters": LINEAR, "mlp_bias": True}),
    "llama-yarn": ("llama", {"rope_parameters": YARN}),
    "llama-yarn-scales": (
        "llama",
        {"rope_parameters": {**YARN, "mscale": 1.5, "mscale_all_dim": 0.6, "truncate": False}},
    ),
    "llama-yarn-betas": (
        "llama",
        {"rope_parameters": {**YARN, "beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.3}},
    ),
    "llama-dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 48}),
    "llama-yarn-zeros": ("llama", {"rope_parameters": {**YARN, "mscale": 1.5, "mscale_all_dim": 0.0}}),
    "llama-gelu": ("llama", {"hidden_act": "gelu"}),
    "llama-swish": ("llama", {"hidden_act": "swish"}),
    "llama-gelu-new": ("llama", {"hidden_act": "gelu_new"}),
    "llama-gelu-fast": ("llama", {"hidden_act": "gelu_fast"}),
    "llama-relu": ("llama", {"hidden_act": "relu"}),
    "mistral": ("mistral", {"sliding_window": 24, "head_dim": 10, "rms_norm_eps": 1e-2}),
    "mistral-odd-sizes": (
        "mistral",
        {"sliding_window": None, "hidden_size": 45, "intermediate_size": 77, "head_dim": 80},
    ),
    "qwen2": ("qwen2", {**WINDOW, "max_window_layers": 1, "num_key_value_heads": 3}),
    "qwen2-yarn": ("qwen2", {"tie_word_embeddings": True, "rope_parameters": YARN}),
    "qwen3": ("qwen3", {**WINDOW, "max_window_layers": 2, "tie_word_embeddings": True}),
    "qwen3-yarn": ("qwen3", {"head_dim": 6, "attention_bias": True, "rope_parameters": YARN}),
    "gemma2": (
        "gemma2",
        {
            "sliding_window": 24,
            "query_pre_attn_scalar": 7,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma2-uncapped": (
        "gemma2",
        {
            "head_dim": 8,
            "sliding_window": 5,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "tie_word_embeddings": False,
            "attention_bias": True,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 24,
            "query_pre_attn_scalar": 11,
            "rope_parameters": {"full_attention": LINEAR, "sliding_attention": LOCAL},
        },
    ),
    "gemma3-defaults": ("gemma3_text", {"num_hidden_layers": 7, "sliding_window": 30, "head_dim": 256}),
    "gemma3-caps": ("gemma3_text", {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0}),
    "phi3": (
        "phi3",
        {"sliding_window": 40, "tie_word_embeddings": True, "partial_rotary_factor": 0.5},
    ),
    "phi3-odd-part": ("phi3", {"partial_rotary_factor": 0.9}),
    "phi3-longrope": (
        "phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 48, "num_key_value_heads": 6},
    ),
    "phi3-longrope-scale": (
        "phi3",
        {"rope_parameters": {**LONGROPE, "attention_factor": 1.7}, "original_max_position_embeddings": 48},
    ),
    "olmo2": ("olmo2", {"attention_bias": True, "rms_norm_eps": 1e-2}),
    "olmo2-yarn": ("olmo2", {"rope_parameters": YARN, "num_key_value_heads": 6}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.7,
            "attention_multiplier": 0.21,
            "residual_multiplier": 0.63,
            "logits_scaling": 0.3,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "granite-defaults": ("granite", {}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2, "attention_bias": True, "mlp_bias": True}),
    "smollm3-window": ("smollm3", {**WINDOW, "no_rope_layers": [0, 1, 0], "tie_word_embeddings": False}),
    "smollm3-listed": (
        "smollm3",
        {"sliding_window": 20, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "mixtral": ("mixtral", {"num_local_experts": 5, "sliding_window": 24}),
    "mixtral-three": ("mixtral", {"num_local_experts": 3, "num_experts_per_tok": 3, "head_dim": 10}),
    "qwen2-moe": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 30, "mlp_only_layers": [1]}),
    "qwen2-moe-window": ("qwen2_moe", {**EXPERTS, **WINDOW, "qkv_bias": False, "norm_topk_prob": True}),
    "qwen3-moe": ("qwen3_moe", {**EXPERTS, "head_dim": 20, "norm_topk_prob": True, "attention_bias": True}),
    "qwen3-moe-some": (
        "qwen3_moe",
        {**EXPERTS, **WINDOW, "decoder_sparse_step": 2, "tie_word_embeddings": True},
    ),
}
