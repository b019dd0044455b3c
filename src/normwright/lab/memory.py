"""How much memory the tensors of a training step need at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def peak_bytes(step: Callable[[], object], held: Iterable[Tensor], device: torch.device) -> int:
    """The most bytes that tensors hold at once while `step()` runs.

    On the CPU every allocation and release of the step is counted by PyTorch's profiler, on top of the
    tensors in `held`; this is exact and does not depend on what else runs on the machine. On a GPU it is
    what the allocator's peak rises by.

    Args:
        step: runs one training step.
        held: tensors that live already, such as parameters and the batch; counted once each.
        device: where the step runs.
    Returns:
        Bytes.
    Example:
        >>> x = torch.zeros(1000)
        >>> peak_bytes(lambda: (x + x) + x, [x], torch.device("cpu"))  # x, its double and the sum
        12000
    """
    base = bytes_of(held)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return base + int(torch.cuda.max_memory_allocated(device)) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes to the terminal
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        step()
    level = peak = 0
    for change in _allocations(profile):
        level += change
        peak = max(peak, level)
    return base + peak


def _allocations(profile: torch.profiler.profile) -> list[int]:
    """Bytes taken (above zero) and given back (below), in order."""
    profiler = profile.profiler
    assert profiler is not None
    assert profiler.kineto_results is not None
    # PyTorch's stubs do not know `nbytes`.
    events: list[Any] = sorted(profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return [event.nbytes() for event in events if event.name() == "[memory]"]


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What tensors take, each memory counted once; what is sparse has none of its own, and is left out."""
    dense = (tensor for tensor in tensors if tensor.layout == torch.strided)
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in dense}.values())
