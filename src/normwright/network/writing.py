"""Writes into tensors in place, those of inference mode too."""

from __future__ import annotations

import torch
from torch import Tensor


def write(tensor: Tensor, value: Tensor | float) -> None:
    """Gives a tensor other values; one that was made in inference mode can be written to in that mode alone.

    Example:
        >>> with torch.inference_mode():
        ...     made = torch.ones(2)
        >>> write(made, 3.0)
        >>> made
        tensor([3., 3.])
    """
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if isinstance(value, Tensor):
            tensor.copy_(value)
        else:
            tensor.fill_(value)
