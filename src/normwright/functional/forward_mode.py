"""Forward-mode derivatives: where one is asked for, plain operations serve, which PyTorch differentiates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def has_tangent(*tensors: Tensor | None) -> bool:
    """Whether a forward-mode derivative goes by way of the tensors.

    Under the transforms of `torch.func` it may: the tangent of an outer one cannot be seen.
    """
    if forward_ad._current_level < 0 or torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def needs_plain_operations(*tensors: Tensor | None) -> bool:
    """Whether no autograd function of ours can serve: under the compiler, `torch.func` or forward mode."""
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return transformed or has_tangent(*tensors)


def primal(tensor: Tensor) -> Tensor:
    """The tensor without its tangent."""
    without: Tensor = forward_ad.unpack_dual(tensor).primal
    return without
