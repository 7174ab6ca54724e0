"""All that is here needs a CUDA device, and says so."""

from __future__ import annotations

import pytest
import torch


def pytest_pycollect_makemodule() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.gpu)
