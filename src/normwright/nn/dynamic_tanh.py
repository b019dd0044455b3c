"""Dynamic tanh as a module. See `functional.dynamic_tanh`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.errors import OptionError
from normwright.functional import dynamic_tanh
from normwright.functional.arguments import is_number


class DynamicTanh(torch.nn.Module):
    """tanh(alpha·x)·weight + bias, in the place of a normaliser.

    State: alpha (), weight and bias (C,).

    Args:
        num_features: C, the channels.
        alpha: where alpha starts; smaller values suit wider networks.
        affine: whether there are weight and bias.
        axis: that of the channels: the last one, or 1 for images.
    Raises:
        OptionError: an alpha that is no number.
    References:
        Zhu et al. 2025, arXiv:2503.10622.
    Example:
        >>> DynamicTanh(3)(torch.zeros(2, 5, 3)).shape
        torch.Size([2, 5, 3])
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        num_features: int,
        alpha: float = 0.5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        axis: int = -1,
    ) -> None:
        super().__init__()
        if not is_number(alpha):
            raise OptionError(f"alpha must be a number, at which it starts, but is {alpha!r}")
        self.num_features, self.start, self.affine, self.axis = num_features, alpha, affine, axis
        self.alpha = torch.nn.Parameter(torch.empty((), device=device, dtype=dtype))
        for name in ("weight", "bias"):
            vector = torch.empty(num_features, device=device, dtype=dtype) if affine else None
            self.register_parameter(name, None if vector is None else torch.nn.Parameter(vector))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """alpha becomes what it started at, the weight 1 and the bias 0."""
        torch.nn.init.constant_(self.alpha, self.start)
        if self.affine:
            torch.nn.init.ones_(self.weight)  # type: ignore[arg-type]
            torch.nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        """Returns y of input's shape."""
        return dynamic_tanh(input, self.alpha, self.weight, self.bias, axis=self.axis)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.num_features}, alpha={self.start}, affine={self.affine}, axis={self.axis}"
