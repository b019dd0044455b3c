"""Normalises every layer by source statistics blended with those of what it is given."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from normwright.errors import OptionError
from normwright.functional.arguments import is_number
from normwright.functional.whitening.autograd import moments
from normwright.functional.whitening_norm import whiten_by
from normwright.statistics.blend import Blend, Evidence, blend
from normwright.statistics.layers import Layer
from normwright.statistics.waiting import not_finite
from normwright.statistics.watch import Call

SourceWeight = float | Mapping[str, float] | None


class Adapter:
    """Answers the calls of layers by blended statistics, layer by layer: each sees what the last one made.

    The evidence of the batch at hand is kept apart until `keep`, so that a refused one leaves no trace.

    Args:
        network: whose buffers are the source.
        source_weight: N, in samples, for all layers or by name; None, or a name left out, to choose it.
        decay: the share of a sample that it counts for one batch later.
    """

    def __init__(self, network: nn.Module, source_weight: SourceWeight, decay: float = 1.0) -> None:
        self._network = network
        self._weight = source_weight
        self._decay = decay
        self._batch: dict[Layer, Evidence] = {}
        self.seen: dict[Layer, Evidence] = {}
        self.number = 0
        self.called = False

    def normalise(self, layer: Layer, call: Call) -> Tensor:
        """The y of a call that normalises by the blend of all that was seen, this batch with it."""
        self.called = True
        x = call.x
        mean, variance = layer.moments_in(self._network)
        if x.numel():
            means, variances = _sample_moments(x)
            bad = (means.isfinite() & variances.isfinite()).logical_not().any(0)
            if bad.any():
                raise not_finite(layer, self.number, bad.nonzero().flatten())
            count = x.numel() // (x.shape[0] * x.shape[1])
            covariance = None if call.whitening is None else _wide(moments(x, call.whitening.group_size)[1])
            new = Evidence.of_samples(means, variances, count, _wide(mean), call.eps, covariance)
            if layer in self._batch:
                new = self._batch[layer].merged(new)
            self._batch[layer] = new
        evidence = self._joined(layer)
        if evidence is not None:
            blended = self.blend(layer, evidence)
            mean = blended.mean.to(mean.device, mean.dtype)
            variance = blended.variance.to(variance.device, variance.dtype)
        if call.whitening is not None:
            return whiten_by(x, mean, variance, call.weight, call.bias, call.whitening)
        y: Tensor = torch.ops.normwright.channel_affine.default(
            x, call.residual, call.weight, call.bias, mean, variance, call.eps, call.activation
        )
        return y

    def blend(self, layer: Layer, evidence: Evidence) -> Blend:
        """The layer's statistics from this evidence."""
        mean, variance = layer.moments_in(self._network)
        weight = self._weight.get(layer.name) if isinstance(self._weight, Mapping) else self._weight
        return blend(evidence, _wide(mean), _wide(variance), weight)

    def keep(self) -> None:
        """Takes the batch's evidence to what was seen before."""
        for layer in self._batch:
            joined = self._joined(layer)
            assert joined is not None
            self.seen[layer] = joined
        self._batch = {}

    def drop(self) -> None:
        """Forgets the batch."""
        self._batch = {}

    def forget(self) -> None:
        """Forgets all: the source's statistics serve again."""
        self._batch, self.seen = {}, {}

    def _joined(self, layer: Layer) -> Evidence | None:
        old, new = self.seen.get(layer), self._batch.get(layer)
        if old is None or new is None:
            return old or new
        return old.faded(self._decay).merged(new) if self._decay > 0 else new


def check_source_weight(weight: SourceWeight, names: Mapping[str, object]) -> None:
    """A weight is a number of samples, 0 or more; names are the network's."""
    given = dict(weight) if isinstance(weight, Mapping) else {"": weight}
    for name, value in given.items():
        if isinstance(weight, Mapping) and name not in names:
            raise OptionError(
                f"source_weight= must name normalisers of the network, but has {name!r}: take one of "
                f"{', '.join(map(repr, list(names)[:8]))}"
            )
        if value is not None and not (is_number(value) and 0 <= value < math.inf):
            raise OptionError(
                f"source_weight= must be a number of samples, 0 or more, but is {value!r}: leave it out to "
                "have it chosen"
            )


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _sample_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) each, on the CPU in float64: means and biased variances over the space of each sample."""
    if x.dim() == 2:
        return _wide(x), torch.zeros(x.shape, dtype=torch.float64)
    eps = 1e-12  # far below any variance that matters, far above float64's least square
    _, moments = torch.ops.normwright.groups_forward.default(x, None, None, None, x.shape[1], True, eps, None)
    means, rstd = _wide(moments)
    return means, (rstd.square().reciprocal() - eps).clamp_min(0)
