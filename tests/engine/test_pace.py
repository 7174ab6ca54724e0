"""A pass of prompts is one layer ahead of its device, and knows which times are a layer's."""

from __future__ import annotations

import pytest
import torch

from engine.pace import OneLayerAhead, computed_at_once


class Stream:
    """Of a device that computes layers when it is told to."""

    def __init__(self) -> None:
        self.queued = 0
        self.done = 0
        self.waits: list[int] = []


def test_at_most_one_layer_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()

    class Event:
        def record(self, on: Stream) -> None:
            self.layer = on.queued

        def query(self) -> bool:
            return stream.done >= self.layer

        def synchronize(self) -> None:
            stream.waits.append(self.layer)
            stream.done = max(stream.done, self.layer)

    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: stream)
    pace = OneLayerAhead(torch.device("cuda:0"))
    told = []
    for _ in range(4):
        stream.queued += 1
        told.append(pace())
        assert stream.queued - stream.done <= 1 or not stream.done
    stream.done = stream.queued  # the step ends, and the next one begins later
    stream.queued += 1
    told.append(pace())
    assert told == [False, True, True, True, False]
    assert stream.waits == [1, 2, 3]


def test_what_is_computed_at_once_is_measured_at_once() -> None:
    assert computed_at_once()
