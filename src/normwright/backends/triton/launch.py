"""What every launch needs to know of its tensors."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton.language as tl
from torch import Tensor


def compute_type(x: Tensor) -> tl.dtype:
    """Triton's name of `compute_dtype(x)`."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def cdiv(size: int, block: int) -> int:
    """size/block, rounded up; Triton's own takes 8 µs."""
    return -(-size // block)


def empty(x: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor on x's device."""
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device)
