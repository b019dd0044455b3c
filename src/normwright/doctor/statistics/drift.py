"""How fast the moments of normalisers' inputs move while a network trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.doctor.statistics.sight import Sight
from normwright.functional.whitening.autograd import moments


class Velocity(NamedTuple):
    """Of one normaliser's moments, for each mini-batch of training.

    Args:
        mean: (C,), of the mean; of whitening, in deviations, P·mean, P being the projection of the moments as
            they were.
        log_variance: (C,), of log(variance + eps); of whitening (G, d, d), of P·covariance·P.
    """

    mean: Tensor
    log_variance: Tensor

    def moved(self, variance: Tensor, eps: float) -> Tensor:
        """(C,), how far outputs move for each mini-batch, squared and relative to their mean square.

        Args:
            variance: (C,), of the population; of whitening, (G, d, d).
            eps: added to it.
        """
        if self.log_variance.dim() > 1:
            return self.mean.square() + self.log_variance.square().sum(-1).flatten() / 4
        return self.mean.square() / (variance + eps) + self.log_variance.square() / 4


class Drift:
    """Holds each mini-batch's moments in the trial against its own at the weights as they came.

    The noise of the mini-batch is the same in both, and falls out of the difference D_t, which grows with the
    t mini-batches that the weights have been trained on: velocity = Σ t·D_t / Σ t².

    Args:
        still: by layer, the moments of each call at the weights as they came, over the same batches.
    """

    def __init__(self, still: Mapping[str, Sequence[tuple[Tensor, Tensor]]]) -> None:
        self._still = still
        self._calls: Counter[str] = Counter()
        self._sums: dict[str, Velocity] = {}
        self._squares: Counter[str] = Counter()

    def before(self, sight: Sight, step: int) -> None:
        """A call begins."""
        name = sight.layer
        still = self._still.get(name, ())
        if sight.recomputed or not sight.by_batch or self._calls[name] >= len(still):
            return
        old_mean, old_variance = still[self._calls[name]]
        self._calls[name] += 1
        apart = _apart(sight, old_mean, old_variance)
        sums = self._sums.get(name, Velocity(torch.zeros_like(old_mean), torch.zeros_like(old_variance)))
        self._sums[name] = Velocity(*(total + step * part for total, part in zip(sums, apart, strict=True)))
        self._squares[name] += step * step

    def after(self, sight: Sight) -> None:
        """It is over."""

    def velocity(self, layer: str) -> Velocity | None:
        """Of a layer; None where the trial was too short to tell."""
        squares = self._squares[layer]
        return Velocity(*(total / squares for total in self._sums[layer])) if squares else None


def _apart(sight: Sight, old_mean: Tensor, old_variance: Tensor) -> Velocity:
    """How far the moments of a call are from what they were."""
    if sight.whitening is not None:
        mean, covariance = (m.to("cpu", torch.float64) for m in moments(sight.x, sight.whitening.group_size))
        projection = sight.whitening.projection(old_variance)
        shift = projection @ (mean - old_mean).view(len(projection), -1, 1)
        return Velocity(shift.flatten(), projection @ (covariance - old_variance) @ projection)
    count, mean, m2 = torch.ops.normwright.channel_moments.default(sight.x)
    new = (m2 / count).to("cpu", torch.float64) + sight.eps
    return Velocity(mean.to("cpu", torch.float64) - old_mean, (new / (old_variance + sight.eps)).log())
