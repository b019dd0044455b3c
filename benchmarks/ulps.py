"""Errors in ulps.

The unit is one ulp, in the result's own dtype, of the largest exact magnitude near the element: for y, dx
and dresidual, among the elements that share its moment (its channel, row or group); for dweight and dbias,
in the whole vector. A result near zero beside large neighbours is thus not asked for digits that the inputs
do not hold, and 0.5 is the error of rounding the exact value.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from normwright.reference import Axes
from normwright.reference.arrays import Array


class Error(NamedTuple):
    """The median and the largest error of a tensor's elements, in ulps; infinite if one is not finite."""

    median: float
    largest: float

    def __str__(self) -> str:
        return f"{self.text(self.median)}, {self.text(self.largest)}"

    @staticmethod
    def text(value: float) -> str:
        """A number of ulps, as a table shows it."""
        if not np.isfinite(value):
            return "not finite"
        return f"{value:.2g}" if value < 100 else f"{value:.0f}" if value < 1e5 else f"{value:.0e}"


def error(name: str, computed: Tensor, exact: Array, axes: Axes) -> Error:
    """The error of the result `name`: y, dx, dresidual, dweight or dbias."""
    values = computed.detach().double().contiguous().numpy()
    per_element = name in ("y", "dx", "dresidual")
    shape, reduced = (axes.view, axes.reduce) if per_element else (exact.shape, None)
    exact = exact.reshape(shape)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.max(np.abs(exact), axis=reduced, keepdims=True)
        errors = np.abs(values.reshape(shape) - exact) / ulp(largest, computed.dtype)
    if not np.isfinite(errors).all():
        return Error(float("inf"), float("inf"))
    return Error(float(np.median(errors)), float(np.max(errors)))


def ulp(magnitude: Array, dtype: torch.dtype) -> Array:
    """The distance from a magnitude to the next larger number of dtype.

    Example:
        >>> ulp(np.array([1.0, 3.0, 0.0]), torch.float16).tolist()
        [0.0009765625, 0.001953125, 5.960464477539063e-08]
    """
    limits = torch.finfo(dtype)
    _, exponent = np.frexp(np.maximum(magnitude, limits.smallest_normal))
    spacing: Array = np.ldexp(limits.eps, exponent - 1)
    return spacing
