"""Batch norm at the time steps of an LSTM layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.errors import OptionError
from normwright.functional.batch_norm import one_value_per_channel
from normwright.functional.lstm.step_norm import Gradients, affine
from normwright.functional.step_statistics import StepStatistics

_channels_forward = torch.ops.normwright.channels_forward.default
_channels_backward = torch.ops.normwright.channels_backward.default
_channel_affine = torch.ops.normwright.channel_affine.default
_channel_affine_backward = torch.ops.normwright.channel_affine_backward.default
_parts_forward = torch.ops.normwright.parts_forward.default
_parts_backward = torch.ops.normwright.parts_backward.default


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
        self._together: tuple[Tensor, Tensor] | None = None

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

    def forward_all(
        self, sizes: Sequence[int], x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """See `StepNorm`. On the CPU each step is a part of one call, if none is alone; on a GPU untried."""
        if not (self._training and sizes[-1] > 1 and x.is_cpu):
            rows = enumerate(x.split(list(sizes)))
            return torch.cat([self.forward(step, row, None, weight, bias, None) for step, row in rows])
        counts = torch.tensor(sizes)
        spans = torch.stack([torch.arange(len(sizes)), counts.cumsum(0) - counts, counts], 1)
        y: Tensor
        y, moments = _parts_forward(x, None, weight, bias, spans, len(sizes), self._eps, None)
        self._together = spans, moments
        size = counts.to(moments.dtype).unsqueeze(1)
        unbiased = moments[2] * (size / (size - 1))
        self._taken += zip(moments[0], unbiased, strict=True)
        return y

    def backward_all(
        self, sizes: Sequence[int], dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Gradients:
        """See `StepNorm`."""
        if self._together is None:
            return self._backward_by_steps(sizes, dy, x, weight, bias)
        spans, moments = self._together
        call = (dy, x, None, weight, bias, moments, spans, len(sizes), None, DX | DWEIGHT | DBIAS)
        dx, _, dweight, dbias = _parts_backward(*call)
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
        return affine(normalised, weight, bias).to(x.dtype)

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

    def _backward_by_steps(
        self, sizes: Sequence[int], dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Gradients:
        rows = enumerate(zip(dy.split(list(sizes)), x.split(list(sizes)), strict=True))
        found = [self.backward(step, *row, weight, bias, None) for step, row in rows]
        dx, *parameters = zip(*found, strict=True)
        sums = [None if part[0] is None else torch.stack(part).sum(0) for part in parameters]
        return torch.cat(dx), sums[0], sums[1]
