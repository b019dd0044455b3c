"""Root-mean-square normalisation as a module. See `functional.rms_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.functional import rms_norm
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.signature import full_signature


@full_signature
class RMSNorm(torch.nn.RMSNorm):
    """Root-mean-square normalisation of (*, *normalized_shape).

    State: weight of normalized_shape.

    The constructor is `torch.nn.RMSNorm`'s, with `activation=` (keyword only) added.
    """

    activation: str | None = None

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        shape, weight, eps = self.normalized_shape, self.weight, self.eps
        return rms_norm(input, shape, weight, eps, residual=residual, activation=self.activation)

    def extra_repr(self) -> str:
        """`torch.nn`'s, with the activation where there is one."""
        return with_activation(super().extra_repr(), self.activation)
