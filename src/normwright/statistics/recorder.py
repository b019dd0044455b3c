"""Normalises every layer by its batch, and keeps that batch's moments."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.moments import statistics_dtype
from normwright.errors import ShapeError
from normwright.functional.whitening.autograd import Rule, whiten
from normwright.statistics.layers import Layer
from normwright.statistics.waiting import CallMoments, Seen, Waiting
from normwright.statistics.watch import Call

# Looking an overload up costs as much as checking an argument.
_channels_forward = torch.ops.normwright.channels_forward.default


class Recorder:
    """Answers the calls of layers as in training, and estimates their populations from them.

    The moments are those that the normalising kernel takes anyway: asked for a momentum of 1 it leaves them,
    in float64, in the running statistics that it is given. No element is read twice.
    """

    def __init__(self) -> None:
        self.seen: dict[Layer, Seen] = {}
        self.batch = 0
        self._waiting = Waiting()

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
            self._waiting.add(layer, CallMoments(self.batch, rows, count, call.eps, means, variances))
            if self._waiting.is_full:
                self.merge()
        return y

    def merge(self) -> None:
        """Takes what waits into the estimates.

        Raises:
            DataError: moments that are not finite; the first such batch is named, and the first layer in it.
        """
        for layer, new in self._waiting.taken().items():
            self.seen[layer] = self.seen[layer].merged(new) if layer in self.seen else new

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
