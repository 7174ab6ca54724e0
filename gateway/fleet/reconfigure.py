"""What a new configuration means for the models that there are: a comparison, without any effect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Models by name. ``changed`` ones keep their engine, ``replaced`` ones need another."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        kinds = {"added": self.added, "removed": self.removed}
        kinds |= {"replaced": self.replaced, "changed": self.changed}
        told = [f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names]
        return "; ".join(told) or "all models as they were"


def compare(before: Iterable[ModelConfig], after: Iterable[ModelConfig]) -> Changes:
    old = {model.name: model for model in before}
    new = {model.name: model for model in after}
    both = [name for name in new if name in old]
    replaced = tuple(name for name in both if needs_new_engine(old[name], new[name]))
    return Changes(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        replaced=replaced,
        changed=tuple(name for name in both if old[name] != new[name] and name not in replaced),
    )


def needs_new_engine(before: ModelConfig, after: ModelConfig) -> bool:
    """Whether they differ in what an engine is opened with; all else is asked anew each time."""
    return _opened_with(before) != _opened_with(after)


def _opened_with(model: ModelConfig) -> tuple[object, ...]:
    return model.path, model.device, model.engine_options()
