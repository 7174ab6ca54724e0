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
        self._stirring: dict[ServedModel, None] = {}
        self._residues: dict[ServedModel, int] = {}
        """Bytes that a resting model keeps on its device."""
        self._residue: dict[str, int] = {}
        """Their sum, by device."""
        self.set(models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def __getitem__(self, name: str) -> ServedModel:
        """By its name or an alias. Raises ModelNotFound."""
        model = self.get(name)
        if model is None:
            raise self.not_found(name)
        return model

    def not_found(self, name: str) -> ModelNotFound:
        return ModelNotFound(f"there is no model {name!r}; there is: {', '.join(self._models) or 'none'}")

    def get(self, name: str) -> ServedModel | None:
        """As above; also one that leaves, by the name that it has for that."""
        return (
            self._models.get(name)
            or self._aliases.get(name)
            or next((model for model in self._stirring if model.name == name), None)
        )

    def set(self, models: Iterable[ServedModel]) -> None:
        """From now on these are found, in this order. Others stir as long as they have to."""
        self._models = {model.name: model for model in models}
        self._aliases = {alias: model for model in self for alias in model.config.aliases}

    @property
    def stirring(self) -> list[ServedModel]:
        return list(self._stirring)

    @property
    def all(self) -> list[ServedModel]:
        """Those that are found, and those that leave."""
        return list(dict.fromkeys((*self, *self._stirring)))

    def rouse(self, model: ServedModel) -> None:
        """Something is about to be asked of it."""
        if model not in self._stirring:
            self._stirring[model] = None
            if model.device:
                self._residue[model.device] = self.residue(model.device) - self._residues.pop(model, 0)

    def let_rest(self) -> None:
        """Look away from those that need nothing any more."""
        for model in [model for model in self._stirring if model.at_rest]:
            del self._stirring[model]
            if model.device:
                self._residues[model] = model.footprint().device
                self._residue[model.device] = self.residue(model.device) + self._residues[model]

    def residue(self, device: str) -> int:
        """Bytes that all resting models together keep on a device."""
        return self._residue.get(device, 0)
