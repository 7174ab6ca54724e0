"""config.json as transformers 4 wrote it."""

from __future__ import annotations

import copy
from typing import Any

_KINDS = ("full_attention", "sliding_attention")


def old_dialect(config: dict[str, Any], *, type_key: str = "rope_type") -> dict[str, Any]:
    """The same model in the old words. ``type_key``: what the kind of rope scaling is called."""
    old = copy.deepcopy(config)
    rope = old.pop("rope_parameters")
    if rope.keys() & set(_KINDS):
        rope, local = (rope[kind] for kind in _KINDS)
        old["rope_local_base_freq"] = local["rope_theta"]
    old["rope_theta"] = rope.pop("rope_theta")
    part = rope.pop("partial_rotary_factor", None)
    if part is not None:
        old["partial_rotary_factor"] = part
    kind = rope.pop("rope_type")
    if kind == "longrope" and type_key == "type":
        kind = "su"
    old["rope_scaling"] = None if kind == "default" else {type_key: kind, **rope}
    old["torch_dtype"] = old.pop("dtype")
    kinds = old.get("layer_types")
    if old["model_type"] != "smollm3":  # whose files have always listed them
        old.pop("layer_types", None)
    if old["model_type"] == "gemma3_text":
        old["sliding_window_pattern"] = kinds.index("full_attention") + 1 if "full_attention" in kinds else 99
    return old
