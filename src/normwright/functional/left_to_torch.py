"""Inputs that PyTorch's own function serves: complex numbers, and nested tensors that are not jagged."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.errors import OptionError


def is_nested_strided(x: Tensor) -> bool:
    """Whether it is a nested tensor of the older layout, which tells no shape."""
    return getattr(x, "is_nested", False) and x.layout is torch.strided


def check_alone(what: str, **extras: object) -> None:
    """PyTorch's function has none of the arguments that are normwright's own."""
    for name, value in extras.items():
        if value is not None:
            raise OptionError(
                f"{name}= must be None with {what}, which is left to PyTorch's own function: do it afterwards"
            )
