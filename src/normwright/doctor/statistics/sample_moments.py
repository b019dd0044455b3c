"""The moments of each sample of a batch, of which those of any part of the batch are made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Reading each sample by itself pays for up to this many; beyond, samples are small.
_SAMPLES = 64


@dataclass(frozen=True, eq=False)
class SampleMoments:
    """Moments of the samples of one batch, in float64 on the CPU.

    Args:
        elements: of each channel of a sample.
        means: (N, C).
        m2s: (N, C), sums of squared deviations from them.
    """

    elements: int
    means: Tensor
    m2s: Tensor

    @classmethod
    def of(cls, x: Tensor) -> SampleMoments:
        """Those of (N, C, *space); x is read once."""
        samples, channels = x.shape[:2]
        elements = x[0, 0].numel()
        if elements == 1:
            means = x.reshape(samples, channels).to("cpu", torch.float64)
            return cls(1, means, torch.zeros_like(means))
        if x.is_contiguous():
            parts = [x.view(1, samples * channels, -1)]
        elif samples <= _SAMPLES:
            parts = list(x.split(1))
        else:
            parts = [x.contiguous().view(1, samples * channels, -1)]
        read = [torch.ops.normwright.channel_moments.default(part)[1:] for part in parts]
        means, m2s = (torch.cat(moments).to("cpu", torch.float64) for moments in zip(*read, strict=True))
        return cls(elements, means.view(samples, channels), m2s.view(samples, channels))

    def parts(self, samples: int) -> tuple[Tensor, Tensor]:
        """(N // samples, C) each: means and biased variances of parts of so many samples, in their order."""
        count = len(self.means) // samples
        means = self.means[: count * samples].unflatten(0, (count, samples))
        m2s = self.m2s[: count * samples].unflatten(0, (count, samples))
        mean = means.mean(1)
        # Chan, Golub & LeVeque 1979, for equal counts
        m2 = m2s.sum(1) + self.elements * (means - mean.unsqueeze(1)).square().sum(1)
        return mean, m2 / (self.elements * samples)
