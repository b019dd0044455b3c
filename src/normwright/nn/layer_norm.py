"""Layer normalisation as a module. See `functional.layer_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.functional import layer_norm
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.parameters import weight_and_bias
from normwright.nn.signature import full_signature


@full_signature
class LayerNorm(torch.nn.LayerNorm):
    """Layer normalisation of (*, *normalized_shape).

    State: weight and bias of normalized_shape.

    The constructor is `torch.nn.LayerNorm`'s, with `activation=` (keyword only) added.
    """

    activation: str | None = None

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        weight, bias = weight_and_bias(self)
        shape, eps, activation = self.normalized_shape, self.eps, self.activation
        return layer_norm(input, shape, weight, bias, eps, residual=residual, activation=activation)

    def extra_repr(self) -> str:
        """`torch.nn`'s, with the activation where there is one."""
        return with_activation(super().extra_repr(), self.activation)
