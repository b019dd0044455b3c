"""Frozen batch norms of other libraries, known by what they compute.

torchvision, detectron2 and Transformers (`DetrFrozenBatchNorm2d`, …) each have a class of their own, which
derives from `nn.Module` alone and holds weight and bias as buffers. Some have eps as a number in their
forward.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

_NAME = re.compile(r"FrozenBatchNorm(\d)d$")
_HELD = frozenset({"weight", "bias", "running_mean", "running_var"})
_EPS = 1e-5

# Two orders of the same five float64 operations differ by less; another formula by more.
_SAME = 1e-10


def eps_of(module: Any) -> float | None:
    """A normaliser's eps; 1e-5 where a frozen batch norm of another library does not tell."""
    eps: float | None = getattr(module, "eps", _EPS)
    return eps


def axes_of_foreign(module: nn.Module) -> int | None:
    """How many axes of space a frozen batch norm of another library takes; None for what is none.

    It is one if it is called so, holds these four buffers and nothing else, and on random numbers gives
    (x − running_mean)/√(running_var + eps)·weight + bias.
    """
    named = next((found for kind in type(module).__mro__ if (found := _NAME.search(kind.__name__))), None)
    held = {name for name, value in module._buffers.items() if value is not None}
    others = [*module._parameters, *module._modules, *held - _HELD - {"num_batches_tracked"}]
    if named is None or others or not held >= _HELD or "forward" in module.__dict__:
        return None
    axes = int(named[1])
    if any(value.is_meta for value in module._buffers.values() if value is not None):
        return None
    return axes if _computes(module, axes) else None


def _computes(module: nn.Module, axes: int) -> bool:
    twin = copy.deepcopy(module).to("cpu", torch.float64)
    held: Any = twin._buffers
    weight, bias, mean, variance = (held[name] for name in ("weight", "bias", "running_mean", "running_var"))
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, len(weight), *[2] * axes, dtype=torch.float64, generator=draw)
    column = (-1, *[1] * axes)

    def wide(vector: Tensor) -> Tensor:
        return vector.view(column)

    eps = eps_of(module)
    expected = (x - wide(mean)) * wide((variance + (eps or 0.0)).rsqrt() * weight) + wide(bias)
    with torch.no_grad():
        y = type(twin).forward(twin, x)
    size = expected.abs() + (wide(mean * weight) * wide((variance + (eps or 0.0)).rsqrt())).abs() + 1
    return isinstance(y, Tensor) and y.shape == x.shape and bool(((y - expected).abs() <= _SAME * size).all())
