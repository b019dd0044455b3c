"""Batch normalisation as modules. See `functional.batch_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.functional import batch_norm
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.parameters import weight_and_bias


def _forward(
    module: torch.nn.modules.batchnorm._BatchNorm, x: Tensor, residual: Tensor | None, activation: str | None
) -> Tensor:
    module._check_input_dim(x)
    training = module.training
    tracked = module.track_running_stats or not training
    running_mean = module.running_mean if tracked else None
    weight, bias = weight_and_bias(module)
    return batch_norm(
        x,
        running_mean,
        module.running_var if tracked else None,
        weight,
        bias,
        training or running_mean is None,
        module.momentum,
        module.eps,
        residual=residual,
        activation=activation,
        num_batches_tracked=module.num_batches_tracked if training and tracked else None,
    )


class BatchNorm1d(torch.nn.BatchNorm1d):
    """Batch normalisation of (N, C) or (N, C, L).

    State: weight, bias, running_mean, running_var (C,), and num_batches_tracked; running_var takes the
    *unbiased* variance. `momentum=None` is the cumulative mean over all batches.

    The constructor is `torch.nn.BatchNorm1d`'s, with `activation=` (keyword only) added.
    """

    activation: str | None = None

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        return _forward(self, input, residual, self.activation)

    def extra_repr(self) -> str:
        """`torch.nn`'s, with the activation where there is one."""
        return with_activation(super().extra_repr(), self.activation)


class BatchNorm2d(torch.nn.BatchNorm2d):
    """Batch normalisation of (N, C, H, W).

    State: weight, bias, running_mean, running_var (C,), and num_batches_tracked; running_var takes the
    *unbiased* variance. `momentum=None` is the cumulative mean over all batches.

    The constructor is `torch.nn.BatchNorm2d`'s, with `activation=` (keyword only) added.
    """

    activation: str | None = None

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        return _forward(self, input, residual, self.activation)

    def extra_repr(self) -> str:
        """`torch.nn`'s, with the activation where there is one."""
        return with_activation(super().extra_repr(), self.activation)


class BatchNorm3d(torch.nn.BatchNorm3d):
    """Batch normalisation of (N, C, D, H, W).

    State: weight, bias, running_mean, running_var (C,), and num_batches_tracked; running_var takes the
    *unbiased* variance. `momentum=None` is the cumulative mean over all batches.

    The constructor is `torch.nn.BatchNorm3d`'s, with `activation=` (keyword only) added.
    """

    activation: str | None = None

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        return _forward(self, input, residual, self.activation)

    def extra_repr(self) -> str:
        """`torch.nn`'s, with the activation where there is one."""
        return with_activation(super().extra_repr(), self.activation)
