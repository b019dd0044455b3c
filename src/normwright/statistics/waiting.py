"""Moments of calls that wait to be merged, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.errors import DataError
from normwright.statistics.estimate import Estimate, Estimator, diagonal
from normwright.statistics.layers import Layer

# Calls per layer that wait: merged one by one, they would cost a small network a tenth of its time, and a GPU
# a synchronisation each.
_MOST = 32


@dataclass(frozen=True, eq=False)
class Seen:
    """What one layer has seen.

    Args:
        estimate: of its population.
        uses: how often it was called.
        eps: as its calls had it.
    """

    estimate: Estimate
    uses: int
    eps: float

    def merged(self, other: Seen) -> Seen:
        """What both have seen."""
        return Seen(self.estimate.merged(other.estimate), self.uses + other.uses, self.eps)

    def statistics(self, estimator: Estimator) -> tuple[Tensor, Tensor]:
        """What the layer's buffers shall hold: the mean, and the variance or covariance."""
        return self.estimate.elements.mean, self.estimate.variance(estimator)


class CallMoments(NamedTuple):
    """Of one call: the means and the unbiased variances, (C,) or, of each sample, (rows, C).

    Where it whitens, (1, C) and covariances (1, G, d, d) stand for them.
    """

    batch: int
    rows: int
    elements: int
    eps: float
    means: Tensor
    variances: Tensor


class Waiting:
    """What calls left since the last merge, by layer, in the order of the layers' first calls."""

    def __init__(self) -> None:
        self.is_full = False
        self._calls: dict[Layer, list[CallMoments]] = {}

    def add(self, layer: Layer, moments: CallMoments) -> None:
        """Keeps what a call of the layer left."""
        calls = self._calls.setdefault(layer, [])
        calls.append(moments)
        self.is_full = self.is_full or len(calls) == _MOST

    def taken(self) -> dict[Layer, Seen]:
        """What each layer has seen, which waits no longer.

        Raises:
            DataError: moments that are not finite; the first such batch is named, and the first layer in it.
        """
        waiting = {layer: calls for layer, calls in self._calls.items() if calls}
        estimates: dict[Layer, Estimate] = {}
        for layers in _alike(waiting):
            estimates |= zip(layers, _estimates([waiting[layer] for layer in layers]), strict=True)
        if not all(bool(estimate.elements.m2.isfinite().all()) for estimate in estimates.values()):
            self._refuse_not_finite()
        # The layers stay: a merge may fall between two of one batch, and their order must not turn round.
        self._calls = {layer: [] for layer in self._calls}
        self.is_full = False
        return {layer: Seen(estimates[layer], len(calls), calls[-1].eps) for layer, calls in waiting.items()}

    def _refuse_not_finite(self) -> None:
        """Names whose fault it is; nobody's where the sum of finite moments overflows."""
        broken: list[tuple[int, Layer, Tensor]] = []
        for layer, calls in self._calls.items():
            if not calls:
                continue
            means, variances = _rows(calls)
            spread = diagonal(variances) if variances.dim() > 2 else variances
            bad = (means.isfinite() & spread.isfinite()).logical_not_()
            if bad.any():
                row = int(bad.any(1).nonzero()[0])
                batches = [call.batch for call in calls for _ in range(call.rows)]
                broken.append((batches[row], layer, bad[row].nonzero().flatten()))
        if broken:
            # Layers are in the order of their first call; min keeps the first of equals.
            batch, layer, channels = min(broken, key=lambda found: found[0])
            raise not_finite(layer, batch, channels)


def _alike(calls: Mapping[Layer, list[CallMoments]]) -> Iterable[list[Layer]]:
    """Layers whose moments fit side by side: as many rows of each; one that whitens stands by itself."""
    groups: dict[object, list[Layer]] = {}
    for layer, waiting in calls.items():
        by_itself = waiting[0].variances.dim() > 2
        groups.setdefault(layer if by_itself else sum(call.rows for call in waiting), []).append(layer)
    return groups.values()


def _estimates(layers: list[list[CallMoments]]) -> list[Estimate]:
    """Of each layer, from its calls; all at once, for a network may have hundreds of small ones."""
    counts = torch.tensor([[call.elements for call in calls for _ in range(call.rows)] for calls in layers])
    means, variances = zip(*map(_rows, layers), strict=True)
    if len(layers) == 1:
        return [Estimate.of_batches(counts[0], means[0], variances[0])]
    sizes = [part.shape[1] for part in means]
    counts = counts.T.repeat_interleave(torch.tensor(sizes), dim=1)
    return Estimate.of_batches(counts, torch.cat(means, 1), torch.cat(variances, 1)).split(sizes)


def _rows(calls: list[CallMoments]) -> tuple[Tensor, Tensor]:
    """Means (B, C) and variances (B, C) or (B, G, d, d), in float64 on the CPU."""
    join = torch.stack if calls[0].means.dim() == 1 else torch.cat
    means, variances = ([call.means for call in calls], [call.variances for call in calls])
    return join(means).to("cpu", torch.float64), join(variances).to("cpu", torch.float64)


def not_finite(layer: Layer, batch: int, channels: Tensor) -> DataError:
    """The error for a layer that met NaN or infinity."""
    first = ", ".join(str(int(channel)) for channel in channels[:4])
    more = f" and {len(channels) - 4} more" if len(channels) > 4 else ""
    which = "channels" if len(channels) > 1 else "channel"
    return DataError(
        f"layer {layer.name!r} ({layer.kind}) must be given finite values, but in batch {batch} (counted "
        f"from 1) {which} {first}{more} held NaN or infinity; no statistics were changed. Leave that batch "
        "out, or look at what comes before the layer"
    )
