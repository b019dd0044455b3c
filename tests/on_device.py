"""Runs tests that were written for the CPU on another device, on the same numbers.

A tensor that a test makes is made on the CPU, by the CPU's generator, and moved; one that becomes an array is
moved back. Whatever names a device itself, as the code under test does, is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MAKERS = {
    torch.arange,
    torch.empty,
    torch.full,
    torch.linspace,
    torch.ones,
    torch.rand,
    torch.randint,
    torch.randn,
    torch.tensor,
    torch.zeros,
}


class OnDevice(TorchFunctionMode):
    """While active, makes every tensor on the device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls the function; moves what it makes."""
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.numpy:
            return args[0].cpu().numpy(*args[1:], **kwargs)
        result = function(*args, **kwargs)
        if function in MAKERS and "device" not in kwargs:
            return moved(result, self.device)
        return result


def moved(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """The tensor on the device, a leaf that wants a gradient where the tensor is one."""
    return tensor.detach().to(device).requires_grad_(tensor.requires_grad)
