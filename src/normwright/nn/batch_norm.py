"""Batch normalisation as modules. See `functional.batch_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from normwright.functional import batch_norm
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.bookkeeping import is_recomputation
from normwright.nn.parameters import weight_and_bias
from normwright.nn.signature import full_signature


def running_statistics(module: _BatchNorm) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """running_mean, running_var and num_batches_tracked, as far as this forward reads or moves them."""
    training = module.training
    if training and (not module.track_running_stats or is_recomputation()):
        return None, None, None
    return module.running_mean, module.running_var, module.num_batches_tracked if training else None


def _forward(module: _BatchNorm, x: Tensor, residual: Tensor | None, activation: str | None) -> Tensor:
    module._check_input_dim(x)
    running_mean, running_var, num_batches_tracked = running_statistics(module)
    weight, bias = weight_and_bias(module)
    return batch_norm(
        x,
        running_mean,
        running_var,
        weight,
        bias,
        module.training or running_mean is None,
        module.momentum,
        module.eps,
        residual=residual,
        activation=activation,
        num_batches_tracked=num_batches_tracked,
    )


@full_signature
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


@full_signature
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


@full_signature
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
