"""Lets these tests import what they share, however pytest was started; one thread, as steps are tiny."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

SHARED = str(Path(__file__).parent.parent)

if SHARED not in sys.path:
    sys.path.append(SHARED)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
