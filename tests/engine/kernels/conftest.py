"""Kernels run compiled where there is a CUDA device, else under Triton's interpreter, which is chosen by the
environment when a kernel is defined: before any test imports one."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
