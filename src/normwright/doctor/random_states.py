"""Random states that come back as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def random_states_kept(seed: int | None = None) -> Iterator[None]:
    """Inside, PyTorch (on every device), NumPy and Python draw what they will draw again afterwards.

    Args:
        seed: that all of them draw from inside; None to draw on as they are.

    Example:
        >>> with random_states_kept():
        ...     first = torch.rand(1)
        >>> bool(first == torch.rand(1))
        True
    """
    python, numpy = random.getstate(), np.random.get_state()  # the state users' code draws from
    # A seed reaches a GPU that nothing has used yet.
    reached = torch.cuda.is_initialized() or seed is not None
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if reached else ()):
            if seed is not None:
                for draw_from in (random.seed, np.random.seed, torch.manual_seed):
                    draw_from(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
