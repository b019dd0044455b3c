"""Batch norm at the time steps of an LSTM layer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.errors import OptionError
from normwright.functional.batch_norm import one_value_per_channel
from normwright.functional.lstm.step_norm import Gradients, affine
from normwright.functional.moving import move_under_transforms
from normwright.functional.step_statistics import StepStatistics

_channels_forward = torch.ops.normwright.channels_forward.default
_channels_backward = torch.ops.normwright.channels_backward.default
_channel_affine = torch.ops.normwright.channel_affine.default
_channel_affine_backward = torch.ops.normwright.channel_affine_backward.default
_parts_forward = torch.ops.normwright.parts_forward.default
_parts_backward = torch.ops.normwright.parts_backward.default


class _Together(NamedTuple):
    """The steps that were normalised in one call, the first so many."""

    steps: int
    spans: Tensor
    moments: Tensor


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
        self._together: _Together | None = None

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
        """See `StepNorm`. Steps that are normalised by the batch are parts of one call, on every device."""
        several = self._count_of_batch(sizes)
        y: Tensor
        if several:
            spans = _spans_of(sizes[:several])
            y, moments = _parts_forward(x, None, weight, bias, spans, several, self._eps, None)
            self._together = _Together(several, spans, moments)
            if self._moving:
                self._taken += zip(moments[0], _unbiased(moments[2], sizes[:several]), strict=True)
        else:
            y = torch.empty_like(x)
        if several < len(sizes):
            alone = [
                self.forward(step, row, None, weight, bias, None) for step, row in _rest(x, sizes, several)
            ]
            torch.cat(alone, out=y[sum(sizes[:several]) :])
        return y

    def backward_all(
        self, sizes: Sequence[int], dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Gradients:
        """See `StepNorm`."""
        found: list[Gradients] = []
        several = 0
        if self._together is not None:
            several, spans, moments = self._together
            call = (dy, x, None, weight, bias, moments, spans, several, None, DX | DWEIGHT | DBIAS)
            whole, _, dweight, dbias = _parts_backward(*call)
            found.append((whole, dweight, dbias))
        else:
            whole = torch.empty_like(x)
        if several < len(sizes):
            rows = zip(_rest(dy, sizes, several), _rest(x, sizes, several), strict=True)
            alone = [self.backward(step, of_y, of_x, weight, bias, None) for (step, of_y), (_, of_x) in rows]
            torch.cat([dx for dx, *_ in alone], out=whole[sum(sizes[:several]) :])
            found += alone
        dweight, dbias = (_sum(parts) for parts in list(zip(*found, strict=True))[1:])
        return whole, dweight, dbias

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
            moments = (torch.stack(parts) for parts in zip(*self._taken, strict=True))
            kept = (self._statistics.mean, self._statistics.variance, self._statistics.count)
            move_under_transforms(self._statistics.move, kept, *moments)
        self._taken.clear()
        self._moving = False

    def _count_of_batch(self, sizes: Sequence[int]) -> int:
        """How many steps are normalised by the batch: the first, as sequences end."""
        return sum(size > 1 for size in sizes) if self._training else 0

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
        running = self._statistics.last_seen(step) if self._training else self._statistics.at(step)
        if self._keeping:  # as they are now: a backward may come after they have moved
            mean, variance = (moment.detach().clone() for moment in running)
            self._constants[step] = mean, variance
        return running


def _spans_of(sizes: Sequence[int]) -> Tensor:
    """Of the steps, one after the other: each a part."""
    counts = torch.tensor(sizes, device="cpu")
    return torch.stack([torch.arange(len(sizes), device="cpu"), counts.cumsum(0) - counts, counts], 1)


def _unbiased(variances: Tensor, sizes: Sequence[int]) -> Tensor:
    """(K, C) from the biased ones of K steps.

    The factors go as numbers, one for each run of steps of a size: a tensor of them would be brought to the
    device, which a stream waits for and a CUDA graph does not take.
    """
    runs = [(size, len(list(steps))) for size, steps in itertools.groupby(sizes)]
    parts = variances.split([steps for _, steps in runs])
    return torch.cat([part * (size / (size - 1)) for part, (size, _) in zip(parts, runs, strict=True)])


def _rest(whole: Tensor, sizes: Sequence[int], first: int) -> Iterable[tuple[int, Tensor]]:
    """The rows of each step from the first on."""
    return enumerate(whole[sum(sizes[:first]) :].split(list(sizes[first:])), first)


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.stack(known).sum(0) if known else None
