"""What all the files stand on: float64 arrays of the shape that must hold, and IEEE's arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from normwright.errors import ShapeError

Array = npt.NDArray[np.float64]

P = ParamSpec("P")
R = TypeVar("R")


def float64(name: str, values: npt.ArrayLike, shape: Sequence[int]) -> Array:
    """The values as a float64 array.

    Args:
        name: what the values are called in the error.
        values: anything that `numpy.asarray` reads.
        shape: the shape that they must have.

    Returns:
        An array of `shape`; `values` itself where it is one already.

    Raises:
        ShapeError: the values have another shape.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != tuple(shape):
        raise ShapeError(f"{name} must have shape {tuple(shape)}, but has {array.shape}: reshape it")
    return array


def ieee(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function take IEEE's answers to 0/0, 1/0 and infinity − infinity, without a warning.

    They are the answers wanted. A class of elements that is not finite, or is constant while eps is 0,
    or has no elements at all, becomes NaN or infinite, and leaves the other classes alone.
    """

    # A context of its own for every call: NumPy 1 cannot enter one errstate twice, as nested calls would.
    @functools.wraps(function)
    def with_ieee_answers(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return function(*args, **kwargs)

    return with_ieee_answers
