"""Local response normalisation as a module. See `functional.local_response_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.functional import local_response_norm
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.signature import full_signature


@full_signature
class LocalResponseNorm(torch.nn.LocalResponseNorm):
    """Local response normalisation of (N, C, *space). It has no state.

    The constructor is `torch.nn.LocalResponseNorm`'s, with `activation=` (keyword only) added.
    """

    activation: str | None = None

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        settings = (self.size, self.alpha, self.beta, self.k)
        return local_response_norm(input, *settings, residual=residual, activation=self.activation)

    def extra_repr(self) -> str:
        """`torch.nn`'s, with the activation where there is one."""
        return with_activation(super().extra_repr(), self.activation)
