"""Lets these tests import what they share; on a GPU, float32 is float32 in convolutions too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent

for folder in (HERE.parent, HERE.parent / "functional", HERE.parent / "nn", HERE.parent / "statistics", HERE):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@pytest.fixture(autouse=True)
def _whole_float32():
    # TF32, which cuDNN's convolutions take by default, rounds to 11 bits
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before
