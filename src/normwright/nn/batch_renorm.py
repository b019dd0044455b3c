"""Batch renormalisation as modules. See `functional.batch_renorm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.errors import OptionError
from normwright.functional import batch_norm, batch_renorm
from normwright.functional.arguments import is_number
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.bookkeeping import is_recomputation
from normwright.nn.parameters import weight_and_bias
from normwright.nn.signature import full_signature

Steps = tuple[int, int]

# Ioffe 2017, section 4.2: batch norm at first, then the clipping is relaxed step by step.
_R_MAX, _R_STEPS = 3.0, (5_000, 40_000)
_D_MAX, _D_STEPS = 5.0, (5_000, 25_000)


@full_signature
class _BatchRenorm(torch.nn.modules.batchnorm._BatchNorm):
    """What the three have in common: all but the number of axes of their input."""

    def __init__(
        self,
        *args: Any,
        r_max: float = _R_MAX,
        d_max: float = _D_MAX,
        r_max_steps: Steps = _R_STEPS,
        d_max_steps: Steps = _D_STEPS,
        activation: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not self.track_running_stats:
            raise OptionError(
                "track_running_stats must be True, but is False: batch renorm corrects towards the running "
                "statistics; use BatchNorm without them"
            )
        for name, least, most, steps in (
            ("r_max", 1, r_max, r_max_steps),
            ("d_max", 0, d_max, d_max_steps),
        ):
            if not is_number(most) or not most >= least:
                raise OptionError(f"{name} must be at least {least}, but is {most!r}")
            if not _are_steps(steps):
                raise OptionError(
                    f"{name}_steps must be a first and a last step, such as (5000, 40000), but is {steps!r}"
                )
        self.r_max, self.r_max_steps = r_max, tuple(r_max_steps)
        self.d_max, self.d_max_steps = d_max, tuple(d_max_steps)
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        self._check_input_dim(input)
        weight, bias = weight_and_bias(self)
        mean: Any = self.running_mean
        variance: Any = self.running_var
        fused: dict[str, Any] = {"residual": residual, "activation": self.activation}
        if not self.training:
            return batch_norm(input, mean, variance, weight, bias, eps=self.eps, **fused)
        if is_recomputation():
            raise OptionError(
                "batch renorm cannot be run again in a backward, as under activation checkpointing: the "
                "running statistics that corrected this batch have moved on. Keep it out of the checkpoint"
            )
        return batch_renorm(
            input,
            mean,
            variance,
            weight,
            bias,
            True,
            self.momentum,
            self.eps,
            r_max=1 + (self.r_max - 1) * self._relaxed(self.r_max_steps),
            d_max=self.d_max * self._relaxed(self.d_max_steps),
            num_batches_tracked=self.num_batches_tracked,
            **fused,
        )

    def _relaxed(self, steps: Any) -> Any:
        """From 0 at the first step to 1 at the last, by the batches counted so far."""
        first, last = steps
        if last == 0:
            return 1.0
        assert self.num_batches_tracked is not None
        counted = self.num_batches_tracked.double()  # stays a tensor: the compiler has no break here
        return ((counted - first) / max(last - first, 1)).clamp(0.0, 1.0)

    def extra_repr(self) -> str:
        """Batch norm's, with the clipping."""
        clipping = (
            f"r_max={self.r_max}, d_max={self.d_max}, r_max_steps={self.r_max_steps}, "
            f"d_max_steps={self.d_max_steps}"
        )
        return with_activation(f"{super().extra_repr()}, {clipping}", self.activation)


def _are_steps(steps: Any) -> bool:
    if not isinstance(steps, tuple | list) or len(steps) != 2:
        return False
    return all(is_number(step) for step in steps) and 0 <= steps[0] <= steps[1]


class BatchRenorm1d(_BatchRenorm):
    """Batch renormalisation of (N, C) or (N, C, L).

    State: as `BatchNorm1d`'s, with whose checkpoints its own are exchangeable: weight, bias, running_mean,
    running_var (C,), and num_batches_tracked. running_var is σ² − eps, σ the moving average of the biased
    deviation √(variance + eps).

    Args:
        args: those of `torch.nn.BatchNorm1d`, with `track_running_stats` always True.
        r_max: the most that the deviation is corrected by, as a factor.
        d_max: the most that the mean is corrected by, in deviations.
        r_max_steps: from batch norm (1) at the first of these steps, as num_batches_tracked counts them, to
            `r_max` at the last, in a straight line; (0, 0) for `r_max` from the start.
        d_max_steps: from 0 to `d_max`, likewise.
        activation: what follows, computed in the same operator.
    Raises:
        OptionError: r_max below 1, d_max below 0, steps that go back, no running statistics; or a forward in
            training inside of a backward, as activation checkpointing makes it.
    References:
        Ioffe 2017, arXiv:1702.03275; it sets eps to 1e-3 and momentum to 0.01.
    Example:
        >>> BatchRenorm1d(3, r_max=2.0)(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    _check_input_dim = torch.nn.BatchNorm1d._check_input_dim


class BatchRenorm2d(_BatchRenorm):
    """Batch renormalisation of (N, C, H, W). See `BatchRenorm1d`."""

    _check_input_dim = torch.nn.BatchNorm2d._check_input_dim


class BatchRenorm3d(_BatchRenorm):
    """Batch renormalisation of (N, C, D, H, W). See `BatchRenorm1d`."""

    _check_input_dim = torch.nn.BatchNorm3d._check_input_dim
