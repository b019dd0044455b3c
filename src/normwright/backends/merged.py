"""Moments of parts, merged into those of all their elements together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from normwright.backends.moments import moved, share_of_batch


@dataclass(frozen=True)
class Merged:
    """The moments of a set: how many elements, their mean, and the sum of squared deviations from it."""

    count: Tensor
    mean: Tensor
    m2: Tensor

    @property
    def variance(self) -> Tensor:
        """The biased variance; 0 where there is no element."""
        return self.m2 / self.count.clamp_min(1)


def merge(counts: Tensor, means: Tensor, m2s: Tensor) -> Merged:
    """Merges the moments of R parts, in their order, by Chan's formula for any number of them.

        mean = Σ count_r·mean_r / Σ count_r,    M2 = Σ (M2_r + count_r·(mean_r - mean)²)

    Every term of M2 is a square: nothing cancels, however far the mean lies from zero. The means are taken
    from that of the largest part, so that parts with the same mean have it together, to the bit. A part
    without elements (count 0, mean 0, M2 0) adds nothing.

    Args:
        counts: (R,), elements behind each part.
        means: (R, C).
        m2s: (R, C), the sums of squared deviations from these means.
    Returns:
        count (), mean (C,) and M2 (C,), in the dtype of what was given.
    References:
        Chan, Golub & LeVeque 1979, Stanford STAN-CS-79-773.
    Example:
        >>> merge(torch.tensor([2.0, 4.0]), torch.tensor([[0.0], [3.0]]), torch.tensor([[2.0], [4.0]]))
        Merged(count=tensor(6.), mean=tensor([2.]), m2=tensor([18.]))
    """
    count = counts.sum()
    level = means.index_select(0, counts.argmax().view(1))
    mean = level[0] + ((means - level) * (counts / count.clamp_min(1)).unsqueeze(1)).sum(0)
    m2 = torch.addcmul(m2s, counts.unsqueeze(1), (means - mean).square()).sum(0)
    return Merged(count, mean, m2)


def move_running(
    batch: Merged,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
) -> None:
    """Moves running statistics towards a batch in place, as `channels_forward` does; rounds once.

    The running variance takes the *unbiased* variance. A batch of one element per channel, whose variance
    is unknown, or of none, moves nothing; it is counted.
    """
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
    if running_mean is None or running_var is None:
        return
    share = share_of_batch(momentum, num_batches_tracked, batch.mean.dtype)
    known = batch.count > 1
    unbiased = batch.m2 / (batch.count - 1).clamp_min(1)
    for running, moment in ((running_mean, batch.mean), (running_var, unbiased)):
        new = moved(running.to(moment.dtype), moment, share).to(running.dtype)
        running.copy_(torch.where(known, new, running))
