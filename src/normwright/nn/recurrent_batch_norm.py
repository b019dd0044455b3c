"""Batch normalisation with statistics per time step, as a module. See `functional.recurrent_batch_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import OptionError
from normwright.functional import recurrent_batch_norm
from normwright.functional.arguments import is_number, whole
from normwright.functional.step_statistics import StepStatistics
from normwright.nn.bookkeeping import is_re_estimated, is_recomputation
from normwright.nn.parameters import weight_and_bias


class RecurrentBatchNorm(nn.Module):
    """Batch normalisation of (N, C) that a recurrent network calls at every time step.

    The activations of the first steps are distributed unlike those of later ones: each step has running
    statistics of its own, up to `max_length`. In inference the last step's serve all after it; in training
    these move the last step's, one after the other. Weight and bias are shared by all steps.

    State: weight, bias (C,), running_mean, running_var (max_length, C), num_batches_tracked (max_length,);
    running_var takes the *unbiased* variance. `momentum=None` is the cumulative mean over all batches.

    Args:
        num_features: C.
        max_length: the cap; 1 shares one pair of statistics among all steps.
        eps: added to the variance; same unit as input².
        momentum: share of a batch in the running statistics.
        gain: where the weight starts. At 1, tanh saturates and gradients vanish over many steps.
        affine: whether weight and bias are learned; without, they are 1 and 0.
        bias: whether there is a bias.
    Raises:
        OptionError: a size below 1, momentum outside [0, 1], eps below 0, or a gain that is no number.
    References:
        Cooijmans et al. 2017, arXiv:1603.09025.
    Example:
        >>> norm = RecurrentBatchNorm(3, max_length=2)
        >>> x = torch.randn(4, 3)
        >>> [norm(x, step).shape for step in range(2)]
        [torch.Size([4, 3]), torch.Size([4, 3])]
        >>> norm.num_batches_tracked
        tensor([1, 1])
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        max_length: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        bias: bool = True,
        *,
        gain: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        num_features = whole("num_features", num_features, 1)
        max_length = whole("max_length", max_length, 1)
        if momentum is not None and not (is_number(momentum) and 0 <= momentum <= 1):
            raise OptionError(f"momentum must lie between 0 and 1, but is {momentum!r}")
        if not is_number(eps) or not eps >= 0:
            raise OptionError(f"eps must be a number of at least 0, but is {eps!r}")
        if not is_number(gain):
            raise OptionError(f"gain must be a number, but is {gain!r}")
        self.num_features, self.max_length = num_features, max_length
        self.eps, self.momentum, self.affine, self.gain = eps, momentum, affine, gain
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(num_features, **made)) if affine else None
        self.bias = nn.Parameter(torch.empty(num_features, **made)) if affine and bias else None
        self.register_buffer("running_mean", torch.zeros(max_length, num_features, **made))
        self.register_buffer("running_var", torch.ones(max_length, num_features, **made))
        counts = torch.zeros(max_length, dtype=torch.long, device=device)
        self.register_buffer("num_batches_tracked", counts)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forgets what was seen."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight to `gain`, bias to 0, statistics as if nothing had been seen."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.constant_(self.weight, self.gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def statistics(self) -> StepStatistics:
        """The buffers, as the functions take them."""
        return StepStatistics(self.running_mean, self.running_var, self.num_batches_tracked, self.momentum)

    def check_seen(self, steps: int) -> None:
        """In inference, raises ShapeError where training has not reached that many steps."""
        if not self.training and not is_re_estimated():
            self.statistics.check_seen(steps)

    def forward(self, input: Tensor, step: int) -> Tensor:
        """Returns y of input's shape (N, C), where N sequences have this step, counted from 0.

        Raises:
            ShapeError: a single sequence in training, or in inference a step that training has not reached.
            OptionError: a step below 0, or not whole.
        """
        step = whole("step", step)
        self.check_seen(step + 1)
        moved = self.training and not is_recomputation()
        weight, bias = weight_and_bias(self)
        return recurrent_batch_norm(
            input,
            step,
            self.running_mean,
            self.running_var,
            weight,
            bias,
            self.training,
            self.momentum,
            self.eps,
            num_batches_tracked=self.num_batches_tracked,
            moving=moved,
        )

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return (
            f"{self.num_features}, max_length={self.max_length}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, gain={self.gain}"
        )
