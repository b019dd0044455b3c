"""Running statistics of a normaliser that a recurrent network uses at every time step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from normwright.errors import OptionError, ShapeError
from normwright.functional.moving import stands_for_several


@dataclass(frozen=True, eq=False)
class StepStatistics:
    """A running mean and variance for each of the first time steps, the last of which serves all later ones.

    Args:
        mean: (T, C), where T is the cap. Moved in place.
        variance: (T, C), of the *unbiased* variance; likewise.
        count: (T,), integer: how many batches have moved each step.
        momentum: share of a batch; None takes 1/count, the cumulative mean.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    momentum: float | None

    def slot(self, step: int) -> int:
        """Whose statistics serve a time step, counted from 0."""
        return min(step, self.mean.shape[0] - 1)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """(C,) each, views."""
        slot = self.slot(step)
        return self.mean[slot], self.variance[slot]

    def last_seen(self, step: int) -> tuple[Tensor, Tensor]:
        """(C,) each, of a time step or of the last one before it that training has reached."""
        row = ((self.count > 0).sum() - 1).clamp(0, self.slot(step)).view(1)
        return self.mean.index_select(0, row)[0], self.variance.index_select(0, row)[0]

    def check_seen(self, steps: int) -> None:
        """Every one of `steps` time steps has statistics, or none has as in a fresh layer.

        Not asked where the counts stand for others: on meta, in a graph that is made, and under `vmap`.

        Raises:
            ShapeError: training has not reached the last of them.
        """
        if torch.compiler.is_compiling() or self.count.is_meta or stands_for_several(self.count) or not steps:
            return
        seen = int((self.count > 0).sum())
        if 0 < seen <= self.slot(steps - 1):
            cap = self.mean.shape[0]
            raise ShapeError(
                f"sequences must be at most {seen} steps long in inference, as those that the statistics "
                f"were taken from, but one has {steps}. Only past max_length={cap} steps do the last step's "
                f"statistics serve: train or recalibrate on longer sequences, or build the layer with "
                f"max_length={seen}, so that its last step serves all later ones"
            )

    @torch.no_grad()
    def move(self, means: Tensor, variances: Tensor) -> None:
        """Moves the statistics of the first K steps towards a batch's; past the cap the last at each step.

        Args:
            means: (K, C).
            variances: (K, C), unbiased.
        """
        cap = self.mean.shape[0]
        self._move(slice(0, min(len(means), cap)), means[:cap], variances[:cap])
        for step in range(cap, len(means)):
            self._move(slice(cap - 1, cap), means[step : step + 1], variances[step : step + 1])

    def _move(self, slots: slice, means: Tensor, variances: Tensor) -> None:
        self.count[slots] += 1
        share: float | Tensor | None = self.momentum
        if share is None:
            share = self.count[slots].to(means.dtype).reciprocal().unsqueeze(1)
        for running, moments in ((self.mean, means), (self.variance, variances)):
            moved = moments * share + running[slots].to(moments.dtype) * (1 - share)
            running[slots] = moved.to(running.dtype)


def check_step_statistics(
    features: int, mean: Tensor, variance: Tensor, count: Tensor | None, momentum: float | None
) -> None:
    """The statistics are (T, C), the counts (T,).

    Raises:
        ShapeError: they are not.
        OptionError: `momentum=None` without counts.
    """
    for name, statistic in (("running_mean", mean), ("running_var", variance)):
        if statistic.dim() != 2 or statistic.shape[1] != features or statistic.shape != mean.shape:
            raise ShapeError(
                f"{name} must be (max_length, {features}), a row for each time step, but has shape "
                f"{list(statistic.shape)}"
            )
    if count is None and momentum is None:
        raise OptionError(
            "momentum=None takes the mean over all batches and needs num_batches_tracked, which is None"
        )
    if count is not None and count.shape != mean.shape[:1]:
        raise ShapeError(
            f"num_batches_tracked must be ({mean.shape[0]},), a count for each time step, but has shape "
            f"{list(count.shape)}"
        )
