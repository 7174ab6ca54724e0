"""How far a pass of prompts is ahead of the device: on a CPU not at all, elsewhere by one layer, so that the
device never waits and a step still knows what layers take."""

from __future__ import annotations

from collections.abc import Callable

import torch

Pace = Callable[[], bool]
"""Called when a layer has been computed, or queued. Whether the time since the last call is a layer's."""


def computed_at_once() -> bool:
    return True


class OneLayerAhead:
    """See ``Pace``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: torch.cuda.Event | None = None

    def __call__(self) -> bool:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        before, self._before = self._before, event
        if before is None or before.query():  # type: ignore[no-untyped-call]
            return False  # the device was idle: this layer has only been queued
        before.synchronize()
        return True
