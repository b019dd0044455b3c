"""Errors in ulps as `benchmarks.ulps` defines them, computed on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.ulps import Error
from normwright.reference import Axes


def error(name: str, computed: Tensor, exact: Tensor, axes: Axes) -> Error:
    """The error of the result `name`: y, dx, dresidual, dweight or dbias.

    Example:
        >>> from normwright.reference import axes_of
        >>> exact = torch.tensor([[1.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
        >>> error("y", exact.float() + 2.0**-22, exact, axes_of("layer", (2, 2))).largest
        2.0
    """
    per_element = name in ("y", "dx", "dresidual")
    shape = axes.view if per_element else tuple(exact.shape)
    reduced = axes.reduce if per_element else tuple(range(exact.dim()))
    exact = exact.detach().reshape(shape)
    largest = exact.abs().amax(reduced, keepdim=True)
    errors = (computed.detach().double().reshape(shape) - exact).abs_() / ulp(largest, computed.dtype)
    if not bool(errors.isfinite().all()):
        return Error(float("inf"), float("inf"))
    return Error(float(errors.median()), float(errors.max()))


def ulp(magnitude: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance from a magnitude (float64) to the next larger number of dtype.

    Example:
        >>> ulp(torch.tensor([1.0, 3.0, 0.0], dtype=torch.float64), torch.float16).tolist()
        [0.0009765625, 0.001953125, 5.960464477539063e-08]
    """
    limits = torch.finfo(dtype)
    _, exponent = torch.frexp(magnitude.clamp_min(limits.smallest_normal))
    return limits.eps * torch.exp2(exponent.double() - 1)
