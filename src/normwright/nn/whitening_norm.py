"""Whitening as modules. See `functional.whitening_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.functional import whitening_norm
from normwright.functional.arguments import HALF_DTYPES, whole
from normwright.functional.whitening_norm import known_sizes
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.bookkeeping import is_recomputation
from normwright.nn.parameters import weight_and_bias

#: Channels in a group where none is said, as in Huang et al. 2018: larger ones need a larger batch.
GROUP_SIZE = 16


class _WhiteningNorm(torch.nn.Module):
    """What the three have in common: all but the number of axes of their input."""

    running_mean: Tensor | None
    running_covariance: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        group_size: int | None = None,
        method: str = "zca",
        iterations: int = 5,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        num_features = whole("num_features", num_features, 1)
        if group_size is None:
            group_size = next(d for d in range(GROUP_SIZE, 0, -1) if num_features % d == 0)
        group_size, iterations = known_sizes(num_features, group_size, method, iterations)
        self.num_features, self.group_size = num_features, group_size
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.method, self.iterations = method, iterations
        self.activation = known_activation(activation)
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        for name in ("weight", "bias"):
            parameter = torch.nn.Parameter(torch.empty(num_features, **options)) if affine else None
            self.register_parameter(name, parameter)
        shape = (num_features // group_size, group_size, group_size)
        self.register_buffer(
            "running_mean", torch.empty(num_features, **options) if track_running_stats else None
        )
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        self.register_buffer(
            "running_covariance",
            torch.empty(shape, device=device, dtype=wide) if track_running_stats else None,
        )
        self.register_buffer(
            "num_batches_tracked",
            torch.tensor(0, dtype=torch.long, device=device) if track_running_stats else None,
        )
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """The running mean becomes 0, the running covariance the identity, and no batch is counted."""
        if self.running_mean is None or self.running_covariance is None or self.num_batches_tracked is None:
            return
        self.running_mean.zero_()
        self.running_covariance.copy_(torch.eye(self.group_size, device=self.running_covariance.device))
        self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """As `reset_running_stats`, and the weight becomes 1 and the bias 0."""
        self.reset_running_stats()
        if self.affine:
            torch.nn.init.ones_(self.weight)  # type: ignore[arg-type]
            torch.nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As PyTorch's, behind `half()`, `to()` and so on, but that the running covariance stays float32.

        In half precision its rounding is larger than the variance of many a direction, and what is made of it
        whitens by noise: in bfloat16 networks that told 0.88 to 0.97 of the digits told 0.28 to 0.50.
        """
        before = self.running_covariance
        super()._apply(fn, recurse)
        after = self.running_covariance
        if before is not None and after is not None and after.dtype in HALF_DTYPES:
            self.running_covariance = before.to(after.device, torch.float32)
        return self

    def _check_input_dim(self, input: Tensor) -> None:
        raise NotImplementedError

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        self._check_input_dim(input)
        weight, bias = weight_and_bias(self)
        # Run again for a backward, as under activation checkpointing, a batch is not counted twice.
        moves = self.training and self.track_running_stats and not is_recomputation()
        running = (self.running_mean, self.running_covariance) if moves or not self.training else (None, None)
        return whitening_norm(
            input,
            *running,
            weight,
            bias,
            self.training or running[0] is None,
            self.momentum,
            self.eps,
            group_size=self.group_size,
            method=self.method,
            iterations=self.iterations,
            residual=residual,
            activation=self.activation,
            num_batches_tracked=self.num_batches_tracked if moves else None,
        )

    def extra_repr(self) -> str:
        """Batch norm's, with the groups and the method."""
        method = self.method if self.method == "zca" else f"{self.method}, iterations={self.iterations}"
        return with_activation(
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}, group_size={self.group_size}, method={method}",
            self.activation,
        )


class WhiteningNorm1d(_WhiteningNorm):
    """Whitens groups of channels of (N, C) or (N, C, L).

    State: weight, bias and running_mean (C,), running_covariance (C/group_size, group_size, group_size), the
    moving average of the batches' unbiased covariances, whose diagonal is batch norm's running_var, in
    float32 or wider whatever the module's dtype, and num_batches_tracked. `momentum=None` is the cumulative
    mean over all batches. Inference makes its projection of the running covariance, and keeps it until that
    changes.

    Where channels of a group depend on each other, as 16 channels that a 3×3 convolution makes of one channel
    do (9 taps: rank 9), the directions without variance turn as the weights move. The running covariance then
    holds variance that the data no longer has, and inference falls behind training while the weights move
    fast: to 0.88 to 0.97 from 0.99 on digits, at a constant learning rate. One that decays closes nearly all
    of the gap, as smaller groups and "iterative" do, and `normwright.recalibrate` all of it.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as `torch.nn.BatchNorm1d`'s.
        group_size: channels that are decorrelated together; divides num_features, and must stay below the
            positions of a batch. None for the largest divisor up to 16.
        method: "zca", exact, or "iterative", Newton's and Schulz's iteration.
        iterations: of the latter.
        activation: what follows.
    Raises:
        ShapeError: the groups do not divide the channels.
        OptionError: a size that is no whole number of at least 1, an unknown method or activation, or no
            iteration.
    References:
        Huang et al. 2018, arXiv:1804.08450 (groups of 16, "zca"); Huang et al. 2019, arXiv:1904.03441
        ("iterative", 5 iterations, groups of 64).
    Example:
        >>> x = torch.randn(64, 4).cumsum(1)  # each channel holds the one before
        >>> y = WhiteningNorm1d(4, affine=False, eps=1e-9)(x)
        >>> torch.allclose(y.T @ y / 64, torch.eye(4), atol=1e-3)
        True
    """

    _check_input_dim = torch.nn.BatchNorm1d._check_input_dim


class WhiteningNorm2d(_WhiteningNorm):
    """Whitens groups of channels of (N, C, H, W). See `WhiteningNorm1d`."""

    _check_input_dim = torch.nn.BatchNorm2d._check_input_dim


class WhiteningNorm3d(_WhiteningNorm):
    """Whitens groups of channels of (N, C, D, H, W). See `WhiteningNorm1d`."""

    _check_input_dim = torch.nn.BatchNorm3d._check_input_dim
