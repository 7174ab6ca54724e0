"""All models by their names, and the few of them about which something may have to be done.

A model stirs while anybody waits for it or uses it, while anything is under way with it, and while it holds
memory that could be taken from it. All others rest: plans need not look at them, so that what a request
costs does not grow with the number of models that are merely there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.errors import ModelNotFound
from gateway.fleet.served_model import ServedModel


class Roster:
    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models: dict[str, ServedModel] = {}
        self._names: dict[str, ServedModel] = {}
        self._stirring: dict[str, ServedModel] = {}
        self._residues: dict[str, int] = {}
        """Bytes that a resting model keeps on its device, by its name."""
        self._residue: dict[str, int] = {}
        """Their sum, by device."""
        for model in models:
            self.add(model)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def __getitem__(self, name: str) -> ServedModel:
        """By its name or an alias. Raises ModelNotFound."""
        model = self._models.get(name) or self._names.get(name)
        if model is None:
            raise ModelNotFound(f"there is no model {name!r}; there is: {', '.join(self._models) or 'none'}")
        return model

    def add(self, model: ServedModel) -> None:
        self._models[model.name] = model
        self._names |= dict.fromkeys(model.config.aliases, model)

    def remove(self, model: ServedModel) -> None:
        """Nobody finds it any more. It stirs as long as it has to."""
        if self._models.get(model.name) is model:
            del self._models[model.name]
        self._names = {alias: other for alias, other in self._names.items() if other is not model}

    @property
    def stirring(self) -> list[ServedModel]:
        return list(self._stirring.values())

    def rouse(self, model: ServedModel) -> None:
        """Something is about to be asked of it."""
        if model.name not in self._stirring:
            self._stirring[model.name] = model
            if model.device:
                self._residue[model.device] = self.residue(model.device) - self._residues.pop(model.name, 0)

    def let_rest(self) -> None:
        """Look away from those that need nothing any more."""
        for model in [model for model in self._stirring.values() if model.at_rest]:
            del self._stirring[model.name]
            if model.device:
                self._residues[model.name] = model.footprint().device
                self._residue[model.device] = self.residue(model.device) + self._residues[model.name]

    def residue(self, device: str) -> int:
        """Bytes that all resting models together keep on a device."""
        return self._residue.get(device, 0)
