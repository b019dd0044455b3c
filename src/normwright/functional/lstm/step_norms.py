"""Normalisers as an LSTM layer calls them: at one time step, forward and backward, by the fused kernels.

Each is made for one pass over a batch of sequences, and remembers the moments of every step.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.errors import OptionError
from normwright.functional.batch_norm import one_value_per_channel
from normwright.functional.step_statistics import StepStatistics

_channels_forward = torch.ops.normwright.channels_forward.default
_channels_backward = torch.ops.normwright.channels_backward.default
_channel_affine = torch.ops.normwright.channel_affine.default
_channel_affine_backward = torch.ops.normwright.channel_affine_backward.default
_rows_forward = torch.ops.normwright.rows_forward.default
_rows_backward = torch.ops.normwright.rows_backward.default

Gradients = tuple[Tensor, Tensor | None, Tensor | None]


class StepNorm(Protocol):
    """One normaliser in one pass over the time steps.

    `forward` and `backward` are kernels; `plain` is the same in differentiable operations.
    """

    def forward(
        self,
        step: int,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Tensor:
        """activation(x̂·weight + bias + residual) of (n, C), the sequences that have this step."""

    def backward(
        self,
        step: int,
        dy: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Gradients:
        """dx, dweight and dbias."""

    def plain(self, step: int, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """x̂·weight + bias."""

    def close(self) -> None:
        """Ends a forward pass: moves what running statistics there are."""


class BatchSteps:
    """Batch norm whose moments are those of each time step.

    In training a step that a single sequence has left has no variance over the batch: it is normalised by
    the running statistics of its step, or of the last step before it that has any.

    Args:
        statistics: of the running moments.
        training: normalise by the batch's moments.
        eps: added to the variance.
        moving: whether this pass moves the statistics, as training does but a recomputation does not.
    """

    def __init__(self, statistics: StepStatistics, training: bool, eps: float, moving: bool) -> None:
        self._statistics, self._training, self._eps = statistics, training, eps
        self._moving = training and moving
        self._recomputing = training and not moving
        self._keeping = torch.is_grad_enabled()
        self._taken: list[tuple[Tensor, Tensor]] = []
        self._moments: dict[int, Tensor] = {}
        self._constants: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(
        self,
        step: int,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Tensor:
        """See `StepNorm`."""
        y: Tensor
        if self._is_of_batch(step, x):
            mean, variance = x.new_zeros((2, x.shape[1]), dtype=statistics_dtype(x)).unbind()
            # Asked for a momentum of 1, the kernel leaves the batch's mean and unbiased variance.
            settings = (mean, variance, None, 1.0, self._eps, activation)
            y, self._moments[step] = _channels_forward(x, residual, weight, bias, *settings)
            self._taken.append((mean, variance))
        else:
            moments = self._running(step)
            y = _channel_affine(x, residual, weight, bias, *moments, self._eps, activation)
        return y

    def backward(
        self,
        step: int,
        dy: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Gradients:
        """See `StepNorm`."""
        wanted = DX | DWEIGHT | DBIAS
        moments = self._moments.get(step)
        if moments is None:
            known = (*self._constants[step], self._eps, activation)
            dx, _, dweight, dbias = _channel_affine_backward(dy, x, None, weight, bias, *known, wanted)
        else:
            kept = (None, moments, activation)
            dx, _, dweight, dbias = _channels_backward(dy, x, None, weight, bias, *kept, wanted)
        return dx, dweight, dbias

    def plain(self, step: int, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """See `StepNorm`."""
        wide = x.to(compute_dtype(x))
        if self._is_of_batch(step, x):
            mean = wide.mean(0)
            centred = wide - mean
            variance = centred.square().mean(0)
            if self._moving:
                unbiased = variance.detach() * (len(x) / (len(x) - 1))
                self._taken.append((mean.detach(), unbiased))
        else:
            mean, variance = self._running(step)
            centred = wide - mean.to(wide.dtype)
        normalised = centred * (variance.to(wide.dtype) + self._eps).rsqrt()
        return _affine(normalised, weight, bias).to(x.dtype)

    def close(self) -> None:
        """See `StepNorm`."""
        if self._moving and self._taken:
            means, variances = (torch.stack(moments) for moments in zip(*self._taken, strict=True))
            self._statistics.move(means, variances)
        self._taken.clear()
        self._moving = False

    def _is_of_batch(self, step: int, x: Tensor) -> bool:
        if self._training and step == 0 and x.shape[0] < 2:
            raise one_value_per_channel(f"a batch of {x.shape[0]} at its first time step")
        return self._training and x.shape[0] > 1

    def _running(self, step: int) -> tuple[Tensor, Tensor]:
        known = self._constants.get(step)
        if known is not None:
            return known
        if self._recomputing:
            raise OptionError(
                "a batch whose longest sequence is alone at its end cannot be run again in a backward, as "
                "under activation checkpointing: the running statistics that its end was normalised by have "
                "moved on. Keep the layer out of the checkpoint"
            )
        self.close()
        if self._training and not torch.compiler.is_compiling():
            step_of = min(self._statistics.slot(step), int((self._statistics.count > 0).sum()) - 1)
        else:
            step_of = step
        running = self._statistics.at(step_of)
        if self._keeping:  # as they are now: a backward may come after they have moved
            mean, variance = (moment.detach().clone() for moment in running)
            self._constants[step] = mean, variance
        return running


class LayerSteps:
    """Layer norm over the features, at each time step.

    Args:
        eps: added to the variance.
    """

    def __init__(self, eps: float) -> None:
        self._eps = eps
        self._moments: dict[int, Tensor] = {}

    def forward(
        self,
        step: int,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Tensor:
        """See `StepNorm`."""
        call = (x, residual, weight, bias, 1, True, self._eps, activation)
        y: Tensor
        y, self._moments[step] = _rows_forward(*call)
        return y

    def backward(
        self,
        step: int,
        dy: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Gradients:
        """See `StepNorm`."""
        wanted = DX | DWEIGHT | DBIAS
        call: tuple[Any, ...] = (dy, x, None, weight, bias, None, self._moments[step], 1, True, activation)
        dx, _, dweight, dbias = _rows_backward(*call, wanted)
        return dx, dweight, dbias

    def plain(self, step: int, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """See `StepNorm`."""
        wide = x.to(compute_dtype(x))
        centred = wide - wide.mean(1, keepdim=True)
        normalised = centred * (centred.square().mean(1, keepdim=True) + self._eps).rsqrt()
        return _affine(normalised, weight, bias).to(x.dtype)

    def close(self) -> None:
        """Nothing runs along."""


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = x if weight is None else x * weight.to(x.dtype)
    return y if bias is None else y + bias.to(y.dtype)
