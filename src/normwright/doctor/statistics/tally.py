"""What the calls of one normaliser add up to, at the same weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from normwright.doctor.statistics.gaps import output_apart, relative, whitened_apart
from normwright.doctor.statistics.moments import MomentFacts, NoiseFacts
from normwright.doctor.statistics.parts import ROUNDING, Parts
from normwright.doctor.statistics.sample_moments import SampleMoments
from normwright.doctor.statistics.sight import Sight
from normwright.functional.whitening.autograd import moments as whitening_moments
from normwright.statistics.estimate import Estimate

Moments = tuple[Tensor, Tensor]


class Tally:
    """The moments that one normaliser met.

    Args:
        sight: its first call.
        ranks: processes that share in its moments, where it is synchronised.
    """

    def __init__(self, sight: Sight, ranks: int = 1) -> None:
        self.sight = sight.without_elements()
        self.in_training = self.in_inference = False
        self.samples = self.elements = 0
        self._ranks = ranks if sight.synchronised else 1
        self._counts: list[int] = []
        self._means: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._covariances: list[Tensor] = []
        self._parts = Parts()
        self._apart = self._whole = torch.zeros((), dtype=torch.float64)

    def meet(self, sight: Sight) -> None:
        """Takes in how many elements a call has, in either mode."""
        self.samples = max(self.samples, len(sight.x) * self._ranks)
        self.elements = max(self.elements, sight.elements * self._ranks)

    def add(self, sight: Sight, running: tuple[Tensor, Tensor] | None, call: int) -> None:
        """Takes in a call of the pass in training mode.

        Args:
            sight: the call.
            running: the statistics, (C,) each, that it would be normalised by in inference, or None; of
                whitening, (G, d, d) covariances for the variances.
            call: which of the layer's calls in one forward, counted from 0.
        """
        self.meet(sight)
        moments = SampleMoments.of(sight.x)
        if sight.per_sample:
            count, means, variances = moments.elements, moments.means, moments.m2s / moments.elements
        else:
            count = moments.elements * len(moments.means)
            means, variances = moments.parts(len(moments.means))
            self._parts.add(moments, call)
        if not sight.centred:
            means, variances = torch.zeros_like(means), variances + means.square()
        self._counts += [count] * len(means)
        self._means.append(means)
        self._variances.append(variances)
        if sight.whitening is not None:
            covariance = whitening_moments(sight.x, sight.whitening.group_size)[1]
            self._covariances.append(covariance.to("cpu", torch.float64))
            means, variances = means[0], self._covariances[-1]
        if running is not None and sight.by_batch:
            apart, whole = self.output_apart((means, variances), running)
            self._apart, self._whole = self._apart + apart, self._whole + whole

    @property
    def calls(self) -> int:
        """How many were added."""
        return len(self._means)

    def estimate(self) -> Estimate | None:
        """Of the population; None where each moment is of one element."""
        counts = torch.tensor(self._counts, dtype=torch.float64)
        if bool((counts < 2).any()):
            return None
        variances = torch.stack(self._covariances) if self._covariances else self._all_variances()
        unbiased = (counts / (counts - 1)).view(-1, *[1] * (variances.dim() - 1))
        return Estimate.of_batches(counts, self._all_means(), variances * unbiased)

    def means_and_variances(self) -> list[tuple[Tensor, Tensor]]:
        """(C,) each, of every call that took the moments of the batch; of whitening, with (G, d, d)."""
        variances = self._covariances or self._all_variances()
        return list(zip(self._all_means(), variances, strict=True))

    def output_apart(self, own: Moments, other: Moments) -> tuple[Tensor, Tensor]:
        """`gaps.output_apart` or `gaps.whitened_apart`, as the layer normalises: (C,) each, sums over calls.

        Args:
            own: moments of the elements, (C,) or (calls, C) each; of whitening, with (G, d, d) covariances.
            other: that they might be normalised by, likewise.
        """
        sight = self.sight
        if sight.whitening is not None:
            return whitened_apart(*own, *other, sight.whitening)
        apart, whole = output_apart(*own, *other, sight.eps)
        return (apart, whole) if apart.dim() == 1 else (apart.sum(0), whole.sum(0))

    def scatter(self, population: Moments) -> Tensor:
        """(C,), E(y' - y)² by the error of a whitening layer's population, from how far the calls lie apart.

            Σ m_B·E(y_B - y)² / ((B - 1)·M),   y_B by the moments of call B, of m_B of the M elements

        Infinite for one call.
        """
        counts = torch.tensor(self._counts, dtype=torch.float64)
        total = torch.zeros_like(population[0])
        for count, mean, covariance in zip(counts, self._all_means(), self._covariances, strict=True):
            unbiased = covariance * (count / (count - 1))
            total += count * self.output_apart(population, (mean, unbiased))[0]
        return total / ((self.calls - 1) * counts.sum()) if self.calls > 1 else total + math.inf

    def standard_errors(self, estimate: Estimate) -> tuple[Tensor, Tensor]:
        """(C,) each: of the mean, in deviations, and of the variance, as a share of it.

        From one batch alone, from how far its halves lie apart; infinite where it cannot be halved.
        """
        if estimate.batches > 1:
            return estimate.standard_errors("within")
        halves = next((point for point in self.noise() if point.batches > 1), None)
        shares = (math.inf, math.inf) if halves is None else (halves.mean, halves.variance)
        # of what this rank was given, where ranks share their moments
        sizes = math.inf if halves is None else self.samples / self._ranks / halves.samples
        mean, variance = (
            torch.full_like(estimate.elements.mean, share / math.sqrt(sizes)) for share in shares
        )
        return mean, variance.nan_to_num(math.inf)

    def noise(self) -> tuple[NoiseFacts, ...]:
        """Of whole batches and of their halves, quarters and so on; of this rank's own where it shares."""
        facts = []
        for samples, parts, of_mean, of_variance in self._parts.noise():
            elements = self.elements * samples // max(self.samples, 1)
            share = of_variance if elements > 1 else math.nan
            facts.append(NoiseFacts(samples, elements, parts, of_mean, share))
        return tuple(facts)

    def facts(self) -> MomentFacts:
        """All of it, but for running statistics."""
        sight, noise = self.sight, self.noise()
        per_row = sight.per_sample and not sight.tracks
        squares, variances = torch.zeros(0), torch.zeros(0)
        if self.calls:
            squares, variances = self._all_means().square(), self._all_variances()
            if not per_row:
                squares, variances = squares.mean(0), variances.mean(0)
        variances = variances[variances > ROUNDING * squares]
        one = next((found.mean for found in noise if found.samples == 1), math.nan)
        some = variances.numel() > 0
        return MomentFacts(
            sight.layer,
            sight.kind,
            sight.x.shape[1],
            sight.per_sample,
            self.in_training,
            self.in_inference,
            self.samples,
            self.elements,
            sight.eps,
            noise,
            1 / math.sqrt(max(self.elements, 1)),
            one / math.sqrt(max(self.samples, 1)),
            float(variances.min()) if some else math.nan,
            float(variances.median()) if some else math.nan,
            float((variances <= sight.eps).double().mean()) if some else math.nan,
            relative(self._apart, self._whole, sight.weight) if self._apart.dim() else math.nan,
        )

    def _all_means(self) -> Tensor:
        return torch.cat(self._means)

    def _all_variances(self) -> Tensor:
        return torch.cat(self._variances)
