"""How fast the moments of normalisers' inputs move while a network trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.doctor.statistics.sight import Sight


class Velocity(NamedTuple):
    """Of one normaliser's moments, for each mini-batch of training.

    Args:
        mean: (C,), of the mean.
        log_variance: (C,), of log(variance + eps).
    """

    mean: Tensor
    log_variance: Tensor


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
        count, mean, m2 = torch.ops.normwright.channel_moments.default(sight.x)
        new = (m2 / count).to("cpu", torch.float64) + sight.eps
        apart = mean.to("cpu", torch.float64) - old_mean, (new / (old_variance + sight.eps)).log()
        sums = self._sums.get(name, Velocity(torch.zeros_like(old_mean), torch.zeros_like(old_mean)))
        self._sums[name] = Velocity(*(total + step * part for total, part in zip(sums, apart, strict=True)))
        self._squares[name] += step * step

    def after(self, sight: Sight) -> None:
        """It is over."""

    def velocity(self, layer: str) -> Velocity | None:
        """Of a layer; None where the trial was too short to tell."""
        squares = self._squares[layer]
        return Velocity(*(total / squares for total in self._sums[layer])) if squares else None
