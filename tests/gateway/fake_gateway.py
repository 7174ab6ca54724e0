"""The `dormouse` command with fake engines behind the seam: ``python -m tests.gateway.fake_gateway``.

Hub ids name the models: ``fake/quick``, ``fake/slow`` (a token every 30 ms), ``fake/broken`` (its device
fails at the first token) and ``fake/unwakeable``.
"""

from __future__ import annotations

import os
from functools import partial

from engine import CheckpointError, DeviceError
from gateway import cli, server
from gateway.fleet import Fleet
from tests.fake_engine import FakeBackend, FakeSpec

SPECS = {
    "fake/quick": FakeSpec(),
    "fake/slow": FakeSpec(token_seconds=0.03),
    "fake/broken": FakeSpec(),
    "fake/unwakeable": FakeSpec(),
}
SPECS["fake/broken"].failures["generate"] = [DeviceError("an illegal memory access")]
SPECS["fake/unwakeable"].failures["wake"] = [CheckpointError("gone", reason="the model's files are gone")]


def main() -> None:
    server.Fleet = partial(Fleet, backend=FakeBackend(SPECS))  # type: ignore[misc,assignment]
    cli.main()


if __name__ == "__main__":
    os.environ.pop("DORMOUSE_API_KEY", None)
    main()
