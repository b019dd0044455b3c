"""Instance normalisation as modules. See `functional.instance_norm`."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from normwright.errors import ShapeError
from normwright.functional import instance_norm
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.bookkeeping import is_recomputation
from normwright.nn.signature import full_signature


def _forward(
    module: torch.nn.modules.instancenorm._InstanceNorm,
    x: Tensor,
    residual: Tensor | None,
    activation: str | None,
) -> Tensor:
    module._check_input_dim(x)
    unbatched = x.dim() == module._get_no_batch_dim()
    channels = x.shape[0 if unbatched else 1]
    if channels != module.num_features:
        if module.affine:
            raise ShapeError(
                f"expected input's size at dim={0 if unbatched else 1} to match num_features "
                f"({module.num_features}), but got: {channels}."
            )
        warnings.warn(
            f"input's size at dim={0 if unbatched else 1} does not match num_features. You can silence this "
            "warning by not passing in num_features, which is not used because affine=False",
            stacklevel=3,
        )
    still = module.training and is_recomputation()
    y = instance_norm(
        x.unsqueeze(0) if unbatched else x,
        None if still else module.running_mean,
        None if still else module.running_var,
        module.weight,
        module.bias,
        module.training or not module.track_running_stats,
        module.momentum if module.momentum is not None else 0.0,
        module.eps,
        residual=residual.unsqueeze(0) if unbatched and residual is not None else residual,
        activation=activation,
    )
    return y.squeeze(0) if unbatched else y


@full_signature
class InstanceNorm1d(torch.nn.InstanceNorm1d):
    """Instance normalisation of (N, C, L) or (C, L).

    State: weight and bias (C,) where affine; running_mean and running_var (C,) where track_running_stats.

    The constructor is `torch.nn.InstanceNorm1d`'s, with `activation=` (keyword only) added.
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
class InstanceNorm2d(torch.nn.InstanceNorm2d):
    """Instance normalisation of (N, C, H, W) or (C, H, W).

    State: weight and bias (C,) where affine; running_mean and running_var (C,) where track_running_stats.

    The constructor is `torch.nn.InstanceNorm2d`'s, with `activation=` (keyword only) added.
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
class InstanceNorm3d(torch.nn.InstanceNorm3d):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W).

    State: weight and bias (C,) where affine; running_mean and running_var (C,) where track_running_stats.

    The constructor is `torch.nn.InstanceNorm3d`'s, with `activation=` (keyword only) added.
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
