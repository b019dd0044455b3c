"""Random states that come back as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """Inside, PyTorch, NumPy and Python draw what they will draw again afterwards.

    Example:
        >>> with random_states_kept():
        ...     first = torch.rand(1)
        >>> bool(first == torch.rand(1))
        True
    """
    python, numpy = random.getstate(), np.random.get_state()  # the state users' code draws from
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
