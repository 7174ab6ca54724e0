"""All models by their names, and what plans see of them.

A model stirs while anybody waits for it or uses it and while anything is under way with it. All others are
quiet, and are seen as they were when they became so; those that hold nothing that could be taken from them
are only counted. So what a request costs does not grow with the models that are merely there. Whoever is
about to do something with a model rouses it first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from gateway.errors import ModelNotFound
from gateway.fleet.served_model import ServedModel
from gateway.fleet.snapshot import Model
from gateway.fleet.view import seen_by_policy
from gateway.near import nearest


class Roster:
    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._stirring: dict[ServedModel, None] = {}
        self._quiet: defaultdict[str, dict[ServedModel, Model]] = defaultdict(dict)
        """By device, those that hold what could be taken from them."""
        self._spare: set[ServedModel] = set()
        """Of those, they whose copies may go to others by themselves."""
        self._residues: dict[ServedModel, int] = {}
        """Bytes that another quiet model keeps on its device."""
        self._residue: defaultdict[str, int] = defaultdict(int)
        """Their sum, by device."""
        self.enrol(models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def __getitem__(self, name: str) -> ServedModel:
        """By its name or an alias. Raises ModelNotFound."""
        model = self.get(name)
        if model is None:
            raise self.not_found(name)
        return model

    def not_found(self, name: str) -> ModelNotFound:
        near = nearest(name, (*self._models, *self._aliases))
        meant = f" (did you mean `{near}`?)" if near else ""
        return ModelNotFound(
            f"The model `{name}` does not exist{meant}; there is: {', '.join(self._models) or 'none'}",
            name=name,
        )

    def get(self, name: str) -> ServedModel | None:
        """As above; also one that leaves, by the name that it has for that."""
        return (
            self._models.get(name)
            or self._aliases.get(name)
            or next((model for model in self._stirring if model.name == name), None)
        )

    def enrol(self, models: Iterable[ServedModel]) -> None:
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

    @property
    def seen(self) -> int:
        """How many models plans look at."""
        return len(self._stirring) + sum(map(len, self._quiet.values()))

    @property
    def devices(self) -> set[str]:
        """On which there are any of these."""
        quiet = {device for device, models in self._quiet.items() if models}
        return quiet | {model.device for model in self._stirring if model.device}

    def rouse(self, model: ServedModel) -> None:
        """Something is about to be done with it."""
        if model in self._stirring:
            return
        self._stirring[model] = None
        if model.device:
            self._quiet[model.device].pop(model, None)
            self._spare.discard(model)
            self._residue[model.device] -= self._residues.pop(model, 0)

    def let_rest(self, now: float) -> None:
        """Look away from those that need nothing any more."""
        for model in [model for model in self._stirring if model.at_rest]:
            del self._stirring[model]
            if model.device is None:
                continue
            if model.held or model.level == 1:
                view = self._quiet[model.device][model] = seen_by_policy(model, now)
                if view.spare_bytes:
                    self._spare.add(model)
            elif residue := model.footprint().device:
                self._residues[model] = residue
                self._residue[model.device] += residue

    def views(self, now: float) -> dict[str, list[Model]]:
        """What plans see, by device."""
        for model in self._spare:
            assert model.device is not None
            quiet = self._quiet[model.device]
            quiet[model] = replace(quiet[model], host_bytes=model.footprint().host_copy)
        views = {device: list(models.values()) for device, models in self._quiet.items()}
        for model in self._stirring:
            if model.device and model.loaded:
                views.setdefault(model.device, []).append(seen_by_policy(model, now))
        return views

    def residue(self, device: str) -> int:
        """Bytes that all models which plans do not see keep on a device, together."""
        return self._residue[device]
