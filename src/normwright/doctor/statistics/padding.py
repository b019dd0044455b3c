"""What padded positions do to the moments of batch normalisers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normwright.doctor.missing import SkipError
from normwright.doctor.statistics.gaps import output_apart, relative
from normwright.doctor.statistics.sight import Sight
from normwright.doctor.subject import Subject
from normwright.errors import OptionError


@dataclass(frozen=True)
class PaddingFacts:
    """One normaliser that takes the moments of the mini-batch over positions of which some are padding.

    Args:
        layer: qualified name.
        kind: its class's name.
        share: of padded positions among the elements of its moments.
        mean_shift: how far they move the mean, in deviations of the rest; root mean square over channels.
        variance_ratio: the variance with them over the one without; the channel that is farthest from 1.
        gap: relative error of the outputs at the other positions.
    """

    layer: str
    kind: str
    share: float
    mean_shift: float
    variance_ratio: float
    gap: float


class PaddingTally:
    """Takes the moments of batch normalisers with and without padded positions.

    Args:
        subject: whose `padding` tells them, or the attention_mask of its batches.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._mask: Tensor | None = None
        self._told = False
        self._layers: dict[str, _Moved] = {}

    def turn_to(self, batch: Any) -> None:
        """The calls that follow are of this batch.

        Raises:
            OptionError: `padding` gave something else than a (N, L) tensor of bool.
        """
        self._mask = _mask_of(batch, self._subject)
        self._told |= self._mask is not None

    def see(self, sight: Sight) -> None:
        """A call in training mode begins."""
        if self._mask is None or not sight.by_batch or sight.per_sample:
            return
        rows = _rows(sight.x, self._mask)
        if rows is not None:
            elements, padded = rows
            self._layers.setdefault(sight.layer, _Moved(sight)).add(elements, padded.to(elements.device))

    def facts(self) -> tuple[PaddingFacts, ...]:
        """Of each normaliser whose elements are positions.

        Raises:
            SkipError: nothing tells which positions are padding.
        """
        if not self._told:
            raise SkipError(
                "nothing tells which positions are padding: neither padding= nor an attention_mask"
            )
        return tuple(moved.facts() for moved in self._layers.values())


class _Moved:
    """What padding did to the moments of one normaliser."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight.without_elements()
        self._padded = self._elements = 0
        self._shifts: list[Tensor] = []
        self._ratio = 1.0
        self._apart = self._whole = torch.zeros((), dtype=torch.float64)

    def add(self, elements: Tensor, padded: Tensor) -> None:
        """Takes in a batch, (M, C) and (M,)."""
        self._padded += int(padded.sum())
        self._elements += len(padded)
        if not bool(padded.any()) or bool(padded.all()):
            return
        (mean, variance), (all_mean, all_variance) = _moments(elements[~padded]), _moments(elements)
        apart, whole = output_apart(mean, variance, all_mean, all_variance, self._sight.eps)
        self._apart, self._whole = self._apart + apart, self._whole + whole
        spread = variance + self._sight.eps
        self._shifts.append((all_mean - mean).square() / spread)
        ratios = (all_variance + self._sight.eps) / spread
        farthest = float(ratios[ratios.log().abs().argmax()])
        if abs(math.log(farthest)) > abs(math.log(self._ratio)):
            self._ratio = farthest

    def facts(self) -> PaddingFacts:
        """All of it."""
        shift = float(torch.stack(self._shifts).mean().sqrt()) if self._shifts else 0.0
        gap = relative(self._apart, self._whole, self._sight.weight) if self._shifts else 0.0
        share = self._padded / max(self._elements, 1)
        return PaddingFacts(self._sight.layer, self._sight.kind, share, shift, self._ratio, gap)


def _mask_of(batch: Any, subject: Subject) -> Tensor | None:
    """(N, L) of bool, true where a position is padding; None where nothing tells."""
    if subject.padding is not None:
        mask = subject.padding(batch)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 2:
            came = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise OptionError(f"padding(batch) must be a (N, L) tensor of bool, but is {came}")
        return mask
    if isinstance(batch, list | tuple) and batch:
        batch = batch[0]
    told = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return told == 0 if isinstance(told, Tensor) and told.dim() == 2 else None


def _rows(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor] | None:
    """x as (M, C), and which of its rows are padding; None where its elements are no positions."""
    samples, length = mask.shape
    if x.dim() == 3 and (len(x), x.shape[2]) == (samples, length):
        return x.transpose(1, 2).flatten(0, 1), mask.flatten()
    if x.dim() == 2 and len(x) == samples * length:
        return x, mask.flatten()
    return None


def _moments(elements: Tensor) -> tuple[Tensor, Tensor]:
    count, mean, m2 = torch.ops.normwright.channel_moments.default(elements.contiguous())
    return mean.to("cpu", torch.float64), (m2 / count).to("cpu", torch.float64)
