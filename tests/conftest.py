"""Where the tests' tensors lie: on the CPU, or on the device that NORMWRIGHT_TEST_DEVICE names."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from normwright.backends import triton

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from builtins_by_name import know_builtins_by_name  # noqa: E402  # found by the line above
from on_device import OnDevice  # noqa: E402

if triton.interprets():
    know_builtins_by_name()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As of a script's `make test &`: the commands that tests interrupt would inherit it, and be deaf.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def device():
    """Where a test that asks for it places its networks and tensors itself; those of any other are moved."""
    return torch.empty(0, device=os.environ.get("NORMWRIGHT_TEST_DEVICE", "cpu")).device


@pytest.fixture(autouse=True)
def _on_device(request):
    device = os.environ.get("NORMWRIGHT_TEST_DEVICE", "cpu")
    if device == "cpu" or "device" in request.fixturenames:
        yield
    else:
        with OnDevice(device):
            yield


def pytest_collection_modifyitems(config, items):
    """Keeps every n-th test of a file where NORMWRIGHT_TEST_SHARE=n, as where each has kernels to compile."""
    share = int(os.environ.get("NORMWRIGHT_TEST_SHARE", "1"))
    kept, left, seen = [], [], {}
    for item in items:
        place = seen[item.path] = seen.get(item.path, -1) + 1
        (left if place % share else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
