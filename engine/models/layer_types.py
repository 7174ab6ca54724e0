"""Each layer's kind of attention: as config.json lists it, or by the rule of its family.

The functions take a config with its family's defaults filled in. No torch in here: an estimate needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FULL = "full_attention"
SLIDING = "sliding_attention"


def full(config: Mapping[str, Any]) -> list[str]:
    return [FULL] * int(config["num_hidden_layers"])


def all_alike(config: Mapping[str, Any]) -> list[str]:
    """Sliding wherever there is a window. Raises ValueError for a list that says otherwise."""
    kind = FULL if config["sliding_window"] is None else SLIDING
    kinds = [kind] * int(config["num_hidden_layers"])
    if config["layer_types"] not in (None, kinds):
        raise ValueError("layer_types that sliding_window contradicts")
    return kinds


def upper(config: Mapping[str, Any]) -> list[str]:
    """The layers from ``max_window_layers`` on slide, if windows are in use."""
    return _listed_if_used(config) or [
        SLIDING if _windows(config) and index >= config["max_window_layers"] else FULL
        for index in range(int(config["num_hidden_layers"]))
    ]


def all_if_used(config: Mapping[str, Any]) -> list[str]:
    """All layers slide, if windows are in use."""
    return [SLIDING if _windows(config) else FULL] * int(config["num_hidden_layers"])


def alternating(config: Mapping[str, Any]) -> list[str]:
    """Every other layer below ``max_window_layers`` slides, if windows are in use."""
    return _listed_if_used(config) or [
        SLIDING if _windows(config) and index % 2 == 0 and index < config["max_window_layers"] else FULL
        for index in range(int(config["num_hidden_layers"]))
    ]


def every_other(config: Mapping[str, Any]) -> list[str]:
    """Every second layer sees all, from the second on."""
    return pattern({**config, "sliding_window_pattern": 2})


def pattern(config: Mapping[str, Any]) -> list[str]:
    """Every ``sliding_window_pattern``-th layer sees all, those between slide."""
    return config["layer_types"] or [
        SLIDING if (index + 1) % config["sliding_window_pattern"] else FULL
        for index in range(int(config["num_hidden_layers"]))
    ]


def without_rope(config: Mapping[str, Any]) -> list[str]:
    """The layers without rope slide, if windows are in use; a list holds even if they are not."""
    return config["layer_types"] or [
        SLIDING if _windows(config) and not rotated else FULL for rotated in rotated_layers(config)
    ]


def _windows(config: Mapping[str, Any]) -> bool:
    """Whether windows are in use."""
    return bool(config["use_sliding_window"]) and config["sliding_window"] is not None


def _listed_if_used(config: Mapping[str, Any]) -> list[str] | None:
    """Raises ValueError for a list of windows that are not in use."""
    listed: list[str] | None = config["layer_types"]
    if listed and SLIDING in listed and not _windows(config):
        raise ValueError("layer_types that use_sliding_window contradicts")
    return listed


def rotated_layers(config: Mapping[str, Any]) -> list[bool]:
    """Whether each layer rotates its queries and keys: all do, but for the family that says which do not."""
    count = int(config["num_hidden_layers"])
    if "no_rope_layers" not in config:
        return [True] * count
    listed = config["no_rope_layers"]
    if listed is None:
        return [(index + 1) % config["no_rope_layer_interval"] != 0 for index in range(count)]
    return [bool(listed[index]) for index in range(count)]
