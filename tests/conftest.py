"""Where the tests' tensors lie: on the CPU, or on the device that NORMWRIGHT_TEST_DEVICE names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from on_device import OnDevice  # noqa: E402  # found by the line above


@pytest.fixture(autouse=True)
def _on_device():
    device = os.environ.get("NORMWRIGHT_TEST_DEVICE", "cpu")
    if device == "cpu":
        yield
    else:
        with OnDevice(device):
            yield
