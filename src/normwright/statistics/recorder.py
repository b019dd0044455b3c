"""Normalises every layer by its batch, and keeps that batch's moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.backends.moments import statistics_dtype
from normwright.errors import DataError, ShapeError
from normwright.functional.whitening.autograd import Rule, whiten
from normwright.statistics.estimate import Estimate, Estimator, diagonal
from normwright.statistics.layers import Layer
from normwright.statistics.watch import Call

# Calls per layer that wait to be merged: merged one by one, they would cost a small network a tenth of its
# time, and a GPU a synchronisation each.
_WAITING = 32

# Looking an overload up costs as much as checking an argument.
_channels_forward = torch.ops.normwright.channels_forward.default


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


class _Moments(NamedTuple):
    """Of one call: the means and the unbiased variances, (C,) or, of each sample, (rows, C).

    Where it whitens, (1, C) and covariances (1, G, d, d) stand for them.
    """

    batch: int
    rows: int
    elements: int
    eps: float
    means: Tensor
    variances: Tensor


class Recorder:
    """Answers the calls of layers as in training, and estimates their populations from them.

    The moments are those that the normalising kernel takes anyway: asked for a momentum of 1 it leaves them,
    in float64, in the running statistics that it is given. No element is read twice.
    """

    def __init__(self) -> None:
        self.seen: dict[Layer, Seen] = {}
        self.batch = 0
        self._waiting: dict[Layer, list[_Moments]] = {}

    def normalise(self, layer: Layer, call: Call) -> Tensor:
        """The y of a call that normalises by its own moments."""
        x = call.x
        rows = x.shape[0] if layer.per_sample else 1
        count = x.numel() // (rows * x.shape[1]) if x.numel() else 0
        if count == 1 and layer.step:
            # The last sequence of its batch to go on: as in training, the running statistics serve.
            return _inference(call)
        if count == 1:
            self._refuse_one(layer, x)
        if call.whitening is not None:
            self._refuse_few(layer, call.whitening, count)
        take = _whitened if call.whitening else _per_sample if layer.per_sample else _per_batch
        y, means, variances = take(call, count)
        if count:
            waiting = self._waiting.setdefault(layer, [])
            waiting.append(_Moments(self.batch, rows, count, call.eps, means, variances))
            if len(waiting) >= _WAITING:
                self.merge()
        return y

    def merge(self) -> None:
        """Takes what waits into the estimates.

        Raises:
            DataError: moments that are not finite; the first such batch is named, and the first layer in it.
        """
        broken: list[tuple[int, Layer, Tensor]] = []
        merged: dict[Layer, Seen] = {}
        for layer, waiting in self._waiting.items():
            if not waiting:
                continue
            means, variances = _joined([m.means for m in waiting]), _joined([m.variances for m in waiting])
            rows = [moments for moments in waiting for _ in range(moments.rows)]
            spread = diagonal(variances) if variances.dim() > 2 else variances
            bad = (means.isfinite() & spread.isfinite()).logical_not_()
            if bad.any():
                row = int(bad.any(1).nonzero()[0])
                broken.append((rows[row].batch, layer, bad[row].nonzero().flatten()))
                continue
            counts = torch.tensor([moments.elements for moments in rows])
            estimate, last = Estimate.of_batches(counts, means, variances), waiting[-1]
            new = Seen(estimate, len(waiting), last.eps)
            merged[layer] = self.seen[layer].merged(new) if layer in self.seen else new
        if broken:
            # Layers are in the order of their first call; min keeps the first of equals.
            batch, layer, channels = min(broken, key=lambda found: found[0])
            raise not_finite(layer, batch, channels)
        self.seen |= merged
        self._waiting = {layer: [] for layer in self._waiting}

    def _refuse_one(self, layer: Layer, x: Tensor) -> None:
        place = "space of one sample" if layer.per_sample else "batch and space"
        raise ShapeError(
            f"layer {layer.name!r} ({layer.kind}) must be given more than 1 value per channel over its "
            f"{place}, but batch {self.batch} gave it {tuple(x.shape)}: the variance of one value is "
            "unknown. Use larger batches, and drop_last=True where the last holds one sample"
        )

    def _refuse_few(self, layer: Layer, rule: Rule, count: int) -> None:
        if 0 < count <= rule.group_size:
            raise ShapeError(
                f"layer {layer.name!r} ({layer.kind}) must be given more positions than the "
                f"{rule.group_size} channels of a group, but batch {self.batch} gave it {count}: the "
                "covariance of fewer is singular. Use larger batches, and drop_last=True where the last is "
                "small"
            )


def _joined(calls: list[Tensor]) -> Tensor:
    """(B, C) or (B, G, d, d), in float64 on the CPU."""
    join = torch.stack if calls[0].dim() == 1 else torch.cat
    return join(calls).to("cpu", torch.float64)


def _whitened(call: Call, count: int) -> tuple[Tensor, Tensor, Tensor]:
    x, rule = call.x, call.whitening
    assert rule is not None
    groups = x.shape[1] // rule.group_size
    if not count:
        return torch.empty_like(x), x.new_zeros(1, x.shape[1]), x.new_zeros(1, groups, *[rule.group_size] * 2)
    whitened = whiten(x, call.weight, call.bias, rule)
    unbiased = whitened.covariance * (count / (count - 1))
    return whitened.y, whitened.mean.unsqueeze(0), unbiased.unsqueeze(0)


def _inference(call: Call) -> Tensor:
    assert call.running_mean is not None
    assert call.running_var is not None
    moments = (call.running_mean, call.running_var, call.eps, call.activation)
    y: Tensor = torch.ops.normwright.channel_affine.default(
        call.x, call.residual, call.weight, call.bias, *moments
    )
    return y


def _per_batch(call: Call, count: int) -> tuple[Tensor, Tensor, Tensor]:
    x = call.x
    # Empty would not do: a share of 0 of NaN is NaN.
    mean, variance = torch.zeros((2, x.shape[1]), dtype=statistics_dtype(x), device=x.device).unbind()
    if not count:
        return torch.empty_like(x), mean, variance
    settings = (mean, variance, None, 1.0, call.eps, call.activation)
    y, _ = _channels_forward(x, call.residual, call.weight, call.bias, *settings)
    return y, mean, variance


def _per_sample(call: Call, count: int) -> tuple[Tensor, Tensor, Tensor]:
    x = call.x
    y, moments = torch.ops.normwright.groups_forward.default(
        x, call.residual, call.weight, call.bias, x.shape[1], True, call.eps, call.activation
    )
    means, rstd = moments
    variances = (rstd.square().reciprocal() - call.eps).clamp_min(0)
    return y, means, variances * (count / max(count - 1, 1))


def not_finite(layer: Layer, batch: int, channels: Tensor) -> DataError:
    """The error for a layer that met NaN or infinity."""
    first = ", ".join(str(int(channel)) for channel in channels[:4])
    more = f" and {len(channels) - 4} more" if len(channels) > 4 else ""
    return DataError(
        f"layer {layer.name!r} ({layer.kind}) must be given finite values, but in batch {batch} (counted "
        f"from 1) channel {first}{more} held NaN or infinity; no statistics were changed. Leave that batch "
        "out, or look at what comes before the layer"
    )
