"""How far statistics moved, and whether they fit where they go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import torch

from normwright.errors import DataError
from normwright.statistics.estimate import Estimate, Estimator, channel_wise
from normwright.statistics.layers import Layer, Layers, Moments


class _Named(Protocol):
    @property
    def name(self) -> str:
        """The layer's."""


Row = TypeVar("Row", bound=_Named)

_NOT_CALLED = "not called, or by a forward of its own that calls no batch_norm"


def moved(
    old: Sequence[Moments], new: Sequence[Moments], eps: Sequence[float]
) -> list[tuple[float, tuple[float, float]]]:
    """Of each layer the largest shift of a mean, in old deviations √(variance + eps), and its extreme ratios.

    The ratios are those of (variance + eps), new to old; of covariances, of the variances among them.

    Args:
        old, new: of each layer; the new ones in float64 on the CPU.
        eps: of each layer's calls.
    """
    sizes = [len(mean) for mean, _ in new]
    old_mean, old_variance, new_mean, new_variance = (
        torch.cat([channel_wise(pair[place].detach().to("cpu", torch.float64)) for pair in pairs])
        for pairs in (old, new)
        for place in (0, 1)
    )
    added = torch.tensor(eps, dtype=torch.float64).repeat_interleave(torch.tensor(sizes))
    spread = old_variance + added
    shifts = ((new_mean - old_mean).abs() / spread.sqrt()).split(sizes)
    ratios = ((new_variance + added) / spread).split(sizes)
    return [
        (float(shift.max()), (float(ratio.min()), float(ratio.max())))
        for shift, ratio in zip(shifts, ratios, strict=True)
    ]


def largest_errors(estimates: Sequence[Estimate], estimator: Estimator) -> list[tuple[float, float]]:
    """Of each layer the largest standard error of a channel's mean and of one's variance."""
    found: dict[int, tuple[float, float]] = {}
    for batches in {estimate.batches for estimate in estimates}:
        places = [place for place, estimate in enumerate(estimates) if estimate.batches == batches]
        some = [estimates[place] for place in places]
        errors = Estimate.side_by_side(some).standard_errors(estimator)
        of_means, of_variances = (error.split([len(one.elements.mean) for one in some]) for error in errors)
        for place, of_mean, of_variance in zip(places, of_means, of_variances, strict=True):
            found[place] = float(of_mean.max()), float(of_variance.max())
    return [found[place] for place in range(len(estimates))]


def fitting(layers: Iterable[Layer], new: Sequence[Moments], old: Sequence[Moments]) -> dict[Layer, Moments]:
    """Of each layer the new moments in the dtypes of the old ones, on their devices.

    Raises:
        DataError: one overflows there.
    """
    return {
        layer: _fitting(layer, moments, buffers)
        for layer, moments, buffers in zip(layers, new, old, strict=True)
    }


def _fitting(layer: Layer, moments: Moments, buffers: Moments) -> Moments:
    mean, variance = (value.to(b.device, b.dtype) for value, b in zip(moments, buffers, strict=True))
    for value, fitted in zip(moments, (mean, variance), strict=True):
        if not bool(fitted.isfinite().all()):
            raise DataError(
                f"the statistics of layer {layer.name!r} must fit {fitted.dtype}, but reach "
                f"{float(value.abs().max()):.3g}; nothing was changed. Scale the layer's input down"
            )
    return mean, variance


def in_order(found: Layers, changed: dict[str, Row], left: Callable[[str, str, str], Row]) -> tuple[Row, ...]:
    """A row for every normaliser in the order of the network, then for calls that no normaliser made.

    Args:
        found: the network's.
        changed: by name, those that changed.
        left: makes the row of one that was left alone, from its name, its class's name and the reason.
    """
    reasons = {name: found.left.get(name, _NOT_CALLED) for name in found.normalisers}
    rows = [
        changed[name] if name in changed else left(name, type(module).__name__, reasons[name])
        for name, module in found.normalisers.items()
    ]
    return (*rows, *(row for name, row in changed.items() if name not in found.normalisers))
