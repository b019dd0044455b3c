"""What every launch needs to know of its tensors; and the launch itself, which a recording may watch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources


class Launch(NamedTuple):
    """A launch that was made, and what Triton compiled for it: None in the interpreter."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    num_warps: int
    compiled: Any


class _Watched(threading.local):
    launches: list[Launch] | None = None


WATCHED = _Watched()


def launch(kernel: Any, grid: tuple[int, ...]) -> Callable[..., None]:
    """`kernel[grid]`; where this thread's launches are watched, the call is one of them."""

    def call(*arguments: Any, num_warps: int) -> None:
        launches, WATCHED.launches = WATCHED.launches, None  # what the interpreter does is not the call's
        try:
            compiled = kernel[grid](*arguments, num_warps=num_warps)
        except OutOfResources:
            arguments = _in_one_stage(kernel, arguments)
            compiled = kernel[grid](*arguments, num_warps=num_warps)
        WATCHED.launches = launches
        if launches is not None:
            launches.append(Launch(kernel, grid, arguments, num_warps, compiled))

    return call


def _in_one_stage(kernel: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments that leave no tiles in flight, for a GPU with less shared memory than the tables are for."""
    named = zip(kernel.arg_names, arguments, strict=True)
    return tuple(1 if name == "STAGES" else value for name, value in named)


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
