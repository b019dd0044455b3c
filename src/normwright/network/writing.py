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


def put_back(tensor: Tensor, value: Tensor) -> None:
    """Gives a tensor the values that it had, and the shape, which observers of quantisation change in place.

    One that was expanded, whose elements share memory, has them still: nothing can write to it in place.

    Example:
        >>> kept = torch.empty(0)
        >>> _ = kept.resize_(2)
        >>> put_back(kept, torch.empty(0))
        >>> kept.shape
        torch.Size([0])
    """
    if is_expanded(tensor):
        return
    if tensor.shape != value.shape:
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            tensor.resize_(value.shape)
    write(tensor, value)


def is_expanded(tensor: Tensor) -> bool:
    """Whether elements of it share memory, so that PyTorch writes none of them in place."""
    if tensor.layout != torch.strided:
        return False
    return any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
