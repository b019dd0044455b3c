"""Inputs on which normalisers lose their digits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.cases import Case


def _shifted(ratio: float) -> Callable[[Tensor, Case], Tensor]:
    return lambda noise, case: noise + ratio


def _constant(noise: Tensor, case: Case) -> Tensor:
    """The elements of each moment are equal, to a number that is no dyadic fraction."""
    view = noise.reshape(case.axes.view)
    first = view
    for axis in case.axes.reduce:
        first = first.narrow(axis, 0, 1)
    return (3.0 + first).expand_as(view).reshape(case.shape)


def _near_overflow(noise: Tensor, case: Case) -> Tensor:
    """Uniform up to fp16's largest number."""
    return torch.erf(noise / 2**0.5) * 65504.0


KINDS: dict[str, Callable[[Tensor, Case], Tensor]] = {
    "ordinary": lambda noise, case: noise,
    "mean/deviation 1e2": _shifted(1e2),
    "mean/deviation 1e4": _shifted(1e4),
    "mean/deviation 1e6": _shifted(1e6),
    "magnitude 1e30": lambda noise, case: noise * 1e30,
    "constant": _constant,
    "near overflow": _near_overflow,
}

# What a dtype can hold: with 8 or 11 bits a mean of 1e4 leaves nothing of a deviation of 1.
SERVES: dict[str, tuple[str, ...]] = {
    "float32": tuple(name for name in KINDS if name != "near overflow"),
    "bfloat16": ("ordinary", "mean/deviation 1e2", "magnitude 1e30", "constant"),
    "float16": ("ordinary", "mean/deviation 1e2", "constant", "near overflow"),
}
