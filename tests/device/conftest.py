"""Lets these tests import what they share; a GPU's convolutions are of float32, and repeat their bits."""

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
def _exact_convolutions(monkeypatch):
    # TF32, which cuDNN's convolutions take by default, rounds to 11 bits; their gradients may use atomics
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
