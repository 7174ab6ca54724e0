"""``GET /v1/models`` and ``GET /v1/models/{id}``: what there is, and its state. Looking wakes nothing."""

from __future__ import annotations

import time
from typing import Any, Final
from urllib.parse import unquote

from litestar import Request, get
from litestar.di import NamedDependency

from gateway.api.schema.models import Model, ModelList, ModelState
from gateway.fleet import Fleet, ModelStatus

_PATH: Final = "/v1/models"
_STARTED: Final = int(time.time())


@get(_PATH)
async def list_models(fleet: NamedDependency[Fleet]) -> ModelList:
    """The models that there are, and their states."""
    await fleet.read_lengths()
    return ModelList(data=[_wire(status) for status in fleet.status()])


@get(f"{_PATH}/{{model:path}}")
async def get_model(request: Request[Any, Any, Any], fleet: NamedDependency[Fleet]) -> Model:
    """One model, by its name or an alias."""
    # Names may hold slashes, also at their beginning, which only the path as sent keeps.
    name = unquote(request.scope["raw_path"].decode("latin-1")).removeprefix(f"{_PATH}/")
    model = fleet.resolve(name)
    await fleet.read_lengths()
    return _wire(fleet.status_of(model.name))


def _wire(status: ModelStatus) -> Model:
    return Model(
        id=status.name,
        root=status.name,
        created=_STARTED,
        status=ModelState(value=status.state, level=status.level),
        aliases=list(status.aliases),
        max_model_len=status.max_model_len,
    )
