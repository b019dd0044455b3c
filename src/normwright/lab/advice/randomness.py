"""Keeps every random state as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_states_kept(seed: int) -> Iterator[None]:
    """Inside, PyTorch (on every device), NumPy and Python draw from the seed; what they were comes back.

    Example:
        >>> before = torch.get_rng_state()
        >>> with random_states_kept(0):
        ...     drawn = torch.rand(3)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            for draw_from in (random.seed, np.random.seed, torch.manual_seed):
                draw_from(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
