"""Tensors as a process makes them in which nothing was set, whatever a notebook has set in this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Tensors are made in float32, on the CPU and with gradients, as in a worker process.

    So a run is the same in this process as in another.

    Example:
        >>> with torch.no_grad(), plain_tensors():
        ...     torch.is_grad_enabled()
        True
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    # PyTorch asks its context at every call, so there is none where it would change nothing.
    on_cpu = nullcontext() if device.type == "cpu" else torch.device("cpu")
    with torch.inference_mode(False), torch.enable_grad(), on_cpu:
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
