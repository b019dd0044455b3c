"""A module's parameters, looked up where they are.

`module.weight` goes through `torch.nn.Module.__getattr__`, which is Python: 0.4 µs each, where the smallest
call takes 6.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def weight_and_bias(module: Any) -> tuple[Tensor | None, Tensor | None]:
    """A torch.nn module's weight and bias; its attributes where these were replaced, as in pruning."""
    own = module._parameters
    weight, bias = own.get("weight"), own.get("bias")
    return (
        module.weight if weight is None else weight,
        module.bias if bias is None else bias,
    )
