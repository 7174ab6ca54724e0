"""The rotations that config.json asks for, in either dialect.

transformers 5 writes ``rope_parameters``, which may differ by kind of layer; most files in the world have
``rope_theta`` and ``rope_scaling``. No torch in here: an estimate needs none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.models.family import Family
from engine.models.layer_types import FULL, SLIDING

_NEEDED = object()

_PARAMETERS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": _NEEDED},
    "dynamic": {"factor": _NEEDED},
    "llama3": {"factor": _NEEDED, "low_freq_factor": _NEEDED, "high_freq_factor": _NEEDED},
    "yarn": {
        "factor": None,
        "attention_factor": None,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": None,
        "mscale_all_dim": None,
        "truncate": True,
    },
    "longrope": {
        "factor": None,
        "attention_factor": None,
        "short_factor": _NEEDED,
        "long_factor": _NEEDED,
    },
}
"""The types that are served, with their parameters and what a missing one means."""
_MISSING_IF_ZERO = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    type: str
    theta: float
    dim: int
    """How many numbers of a head are rotated, from its first on; an odd one takes the next with it."""
    original_length: int
    """Positions that the model was trained for before its range was stretched."""
    parameters: Mapping[str, Any]
    """Numbers, None, or tuples of numbers; of ``_PARAMETERS[type]``."""

    @property
    def stretched_length(self) -> int:
        """Positions that the scaling is made for."""
        if self.type in ("linear", "dynamic", "yarn"):
            return int(self.original_length * (self.parameters["factor"] or 1.0))
        return 0

    @property
    def table_bytes(self) -> int:
        """What ``engine.models.rope`` keeps of it: exponents, frequencies and signs, float32."""
        tables = 4 if self.type == "longrope" else 3
        return tables * 2 * math.ceil(self.dim / 2) * 4

    def prompt_variant(self, length: int) -> int:
        """Of prompts of this length, the length that their rotations are made for; 0 for those within the
        original length. Prompts of different variants cannot share keys."""
        if length <= self.original_length:
            return 0
        return {"longrope": self.original_length + 1, "dynamic": length}.get(self.type, 0)


def parse_ropes(
    config: Mapping[str, Any], known: Mapping[str, Any], family: Family, head_dim: int
) -> dict[str, RopeConfig]:
    """By kind of layer. ``known``: the config's keys that the family knows, defaults filled in.
    Raises ValueError, KeyError or TypeError for what is malformed or not served."""
    scaling, given = config.get("rope_scaling") or {}, config.get("rope_parameters") or {}
    theta = config.get("rope_theta") or known["rope_theta"]
    if family.local_rope_theta is None:
        rope = _parse(scaling or given, config, known, family, head_dim, theta)
        return {FULL: rope, SLIDING: rope}
    local = config.get("rope_local_base_freq") or family.local_rope_theta
    # The reference overlooks parameters that name no kind of layer, but takes no scaling beside them.
    if given and scaling and not given.keys() & {FULL, SLIDING}:
        raise ValueError("rope_scaling beside rope_parameters that name no kind of layer")
    whole = {**(given.get(FULL) or {}), **scaling}
    return {
        FULL: _parse(whole, config, known, family, head_dim, theta),
        SLIDING: _parse(given.get(SLIDING) or {}, config, known, family, head_dim, local),
    }


def _parse(
    given: Mapping[str, Any],
    config: Mapping[str, Any],
    known: Mapping[str, Any],
    family: Family,
    head_dim: int,
    theta: float,
) -> RopeConfig:
    kind = given.get("rope_type") or given.get("type") or "default"
    kind = family.rope_names.get(kind, kind)
    if kind not in _PARAMETERS:
        raise ValueError(f"rope scaling {kind!r} (known: {', '.join(_PARAMETERS)})")
    if found := given.keys() & {FULL, SLIDING, "mrope_section", "llama_4_scaling_beta"}:
        raise ValueError(f"{found.pop()} in rope parameters")
    dim = int(head_dim * _part(given, config, family, scaled=kind != "default"))
    longest = int(known["max_position_embeddings"])
    original = known.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    original = original or given.get("original_max_position_embeddings") or longest
    original = longest if kind in ("default", "linear", "dynamic") else int(original)
    parameters = {name: _number(given, name, default) for name, default in _PARAMETERS[kind].items()}
    if kind in ("yarn", "longrope"):
        parameters["factor"] = parameters["factor"] or longest / original
    pairs = math.ceil(dim / 2)
    if kind == "longrope" and {len(parameters[f"{n}_factor"]) for n in ("short", "long")} != {pairs}:
        raise ValueError(f"factors of rope that are not {pairs}")
    if kind == "dynamic" and dim < 4:
        raise ValueError("dynamic rope of so small a head")
    return RopeConfig(kind, _positive(given.get("rope_theta") or theta), dim, original, parameters)


def _part(given: Mapping[str, Any], config: Mapping[str, Any], family: Family, *, scaled: bool) -> float:
    """How much of each head is rotated. Families that rotate whole heads overlook the factor, as the
    reference does; under a scaling, where the reference cannot compute them, they are refused with it."""
    if not (family.partial_rope or scaled):
        return 1.0
    key = "partial_rotary_factor"
    part = next((float(one[key]) for one in (given, config) if one.get(key) is not None), 1.0)
    if part != 1.0 and not (family.partial_rope and 0 < part < 1):
        raise ValueError(f"{key} {part}")
    return part


def _number(given: Mapping[str, Any], name: str, default: Any) -> Any:
    value = given.get(name)
    if value is None or (value == 0 and name in _MISSING_IF_ZERO):
        if default is _NEEDED:
            raise KeyError(name)
        return default
    if isinstance(value, list):
        return tuple(map(_positive, value))
    return bool(value) if isinstance(default, bool) else _positive(value)


def _positive(value: Any) -> float:
    number = float(value)
    if not (0 < number < math.inf):
        raise ValueError(f"{number} where a positive number belongs")
    return number
