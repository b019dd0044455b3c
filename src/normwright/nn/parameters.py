"""A module's parameters and buffers, looked up where they are.

`module.weight` goes through `torch.nn.Module.__getattr__`, which is Python: 0.4 µs each, where the smallest
call takes 6.
"""

from __future__ import annotations

from torch import Tensor, nn


def weight_and_bias(module: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """The module's weight and bias; its attributes where something took their place, as pruning does."""
    own = module._parameters
    weight: Tensor | None = own.get("weight")
    bias: Tensor | None = own.get("bias")
    if weight is None:
        weight = module.weight
    if bias is None:
        bias = module.bias
    return weight, bias
