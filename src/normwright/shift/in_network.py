"""What two data sets do inside a network: where it begins, what it costs, and what brings it back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import CollapseError, DataError, OptionError, ShapeError
from normwright.network.batch_call import Caller, ForwardFn
from normwright.network.copying import copied
from normwright.network.counting import how_many
from normwright.shift.layer_inputs import CURRENT, REFERENCE, LayerInputs
from normwright.shift.layer_shift import GROUPS, layer_shifts
from normwright.shift.report import NetworkShift, Recovery
from normwright.statistics.adapt import adapt
from normwright.statistics.guard import class_scores

_Z = 1.959963984540054  # the normal distribution's quantile of 0.975


@dataclass(frozen=True, eq=False)
class Shown:
    """What a network is shown of one set, in random order.

    Args:
        name: of the set.
        count: how many samples.
        batch: (begin, end) -> those samples as a loader gives them.
        labels: (count,), int64, or None.
    """

    name: str
    count: int
    batch: Callable[[int, int], Any]
    labels: Tensor | None

    def batches(self, size: int) -> Iterator[Any]:
        """All of them, in order."""
        return (self.batch(begin, min(begin + size, self.count)) for begin in range(0, self.count, size))


def network_shift(
    network: nn.Module,
    reference: Shown,
    current: Shown,
    *,
    batch_size: int,
    level: float,
    seed: int,
    forward_fn: ForwardFn | None = None,
    on_stage: Callable[[str], None],
) -> NetworkShift:
    """Runs a copy of the network, in inference mode, on both sets.

    Args:
        network: without a wrapper; left as it is.
        reference, current: what it is shown.
        batch_size: samples of one call.
        level: of the layers' p-values.
        seed: of the permutations.
        forward_fn: called as forward_fn(network, batch) instead, for any other signature.
        on_stage: told of each reading.
    Raises:
        OptionError: it cannot be copied, or does not take the batches.
        DataError: a label is beyond its outputs.
        Whatever the network raises.
    """
    twin = copied(network).eval()
    fewer = min(reference.count, current.count)
    size = math.ceil(fewer / GROUPS)
    answers = []
    with torch.no_grad(), LayerInputs(twin, fewer // size, size) as inputs:
        call = Caller(twin, forward_fn)
        for which, shown in ((REFERENCE, reference), (CURRENT, current)):
            on_stage(f"the network on {shown.name}")
            inputs.which, inputs.begin = which, 0
            scores = []
            for begin in range(0, shown.count, batch_size):
                inputs.begin = begin
                inputs.samples = min(batch_size, shown.count - begin)
                scores.append(class_scores(call(shown.batch(begin, begin + inputs.samples))))
            answers.append(_right(shown, scores))
    layers = layer_shifts(inputs.layers, level=level, seed=seed)
    first = next((layer.name for layer in layers if layer.moved), None)
    on_stage("whether adapt would help")
    recovery = _recovery(twin, current, answers[REFERENCE], answers[CURRENT], batch_size, forward_fn)
    return NetworkShift(layers, first, recovery, (reference.count, current.count))


def _right(shown: Shown, scores: list[Tensor | None]) -> Tensor | None:
    """(count,), whether each sample was given its label; None without labels or class scores."""
    found = [part for part in scores if part is not None and part.dim() == 2]
    if shown.labels is None or len(found) < len(scores):
        return None
    classes = found[0].shape[1]
    beyond = (shown.labels < 0) | (shown.labels >= classes)
    if beyond.any():
        raise DataError(
            f"labels must be class numbers from 0 to {classes - 1}, as the network has "
            f"{how_many(classes, 'output')}, but {shown.name} has "
            f"{how_many(int(beyond.sum()), 'other')}, such as {int(shown.labels[beyond][0])}: give the "
            "network that was trained on these classes, or leave the labels out"
        )
    return torch.cat([part.argmax(1).cpu() for part in found]) == shown.labels


def _recovery(
    twin: nn.Module,
    current: Shown,
    before: Tensor | None,
    after: Tensor | None,
    batch_size: int,
    forward_fn: ForwardFn | None,
) -> Recovery:
    known = Recovery(_share(before), _share(after))
    if after is None:
        missing = "the current set has no labels"
        if current.labels is not None:
            missing = "the network gives no class scores"
        return dataclasses.replace(known, reason=f"no accuracy: {missing}")
    try:
        adaptation = adapt(twin, list(current.batches(batch_size)), forward_fn=forward_fn)
    except (OptionError, CollapseError, DataError, ShapeError) as refusal:
        return dataclasses.replace(known, reason=f"adapt was not tried to the end: {refusal}")
    with adaptation, torch.no_grad():
        call = Caller(twin, forward_fn)
        adapted = _right(current, [class_scores(call(batch)) for batch in current.batches(batch_size)])
    if adapted is None:
        return dataclasses.replace(known, reason="no accuracy after adapt: the network gives no class scores")
    change = adapted.double() - after.double()
    gain = float(change.mean())
    # With two samples more, one better and one worse, so that answers that all agree have a width, too.
    count = len(change) + 2
    variance = (float(change.square().sum()) + 2) / count - (float(change.sum()) / count) ** 2
    error = math.sqrt(variance / count)
    interval = (gain - _Z * error, gain + _Z * error)
    return dataclasses.replace(known, adapted=_share(adapted), gain=gain, gain_interval=interval)


def _share(right: Tensor | None) -> float | None:
    return None if right is None else float(right.double().mean())
