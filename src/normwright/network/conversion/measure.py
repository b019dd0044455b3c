"""How far a network's outputs are from those it had, and how good they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from normwright.errors import DataError
from normwright.network.calling import tensors_of
from normwright.network.conversion.observe import Forward, inference

#: (outputs of the network, what stands beside the input in the batch) -> a number.
Metric = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Measured:
    """One network on some batches, in inference.

    Args:
        difference: √(Σ (output − output before)² / Σ (output before)²), over all floating outputs; NaN where
            their values decide their shapes (predicted durations, detections), and some are of others.
        metric: the mean over the samples, or None where there is none.
        batches: how many.
        samples: how many.
    """

    difference: float
    metric: float | None
    batches: int
    samples: int


def accuracy(output: Any, labels: Any) -> float | None:
    """Share of right answers, where the output is scores (N, classes) and labels are integers (N,).

    Example:
        >>> accuracy(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        0.5
    """
    if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
        return None
    for scores in floating(output):
        if scores.dim() == 2 and len(scores) == len(labels):
            return float((scores.argmax(1) == labels).double().mean())
    return None


def measure(
    before: nn.Module, after: nn.Module, batches: Iterable[Any], forward: Forward, metric: Metric | None
) -> tuple[Measured, Measured]:
    """The network as it was, and the other against it.

    Args:
        before: the network as it was.
        after: the one that is measured.
        batches: read once.
        forward: runs a network on a batch.
        metric: of (outputs, second part of the batch); None for accuracy where there are labels.
    Raises:
        DataError: there is no batch.
    """
    squares = [0.0, 0.0]
    metrics: list[list[tuple[float, int]]] = [[], []]
    count = samples = 0
    with inference(before), inference(after):
        for batch in batches:
            both = [forward(network, batch) for network in (before, after)]
            olds, news = map(floating, both)
            if [old.shape for old in olds] != [new.shape for new in news]:
                squares[0] = math.nan
            else:
                for old, new in zip(olds, news, strict=True):
                    squares[0] += float((new.double() - old.double()).square().sum())
                    squares[1] += float(old.double().square().sum())
            labels = batch[1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None
            labels = _beside(both[0], labels)
            size = _size(labels, both[0])
            for values, output in zip(metrics, both, strict=True):
                value = metric(output, labels) if metric is not None else accuracy(output, labels)
                if value is not None:
                    values.append((float(value), size))
            count, samples = count + 1, samples + size
    if not count:
        raise DataError("calibrate= must give at least one batch, but gives none")
    difference = math.sqrt(squares[0] / squares[1]) if squares[1] else math.sqrt(squares[0])
    old_metric, new_metric = (_mean(values, count) for values in metrics)
    return Measured(0.0, old_metric, count, samples), Measured(difference, new_metric, count, samples)


def floating(output: Any) -> list[Tensor]:
    """The floating-point tensors of an output, whatever holds them."""
    return [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]


def _beside(output: Any, labels: Any) -> Any:
    """The labels on the output's device."""
    found = next(iter(floating(output)), None)
    return labels.to(found.device) if isinstance(labels, Tensor) and found is not None else labels


def _size(labels: Any, output: Any) -> int:
    first = labels if isinstance(labels, Tensor) and labels.dim() else next(iter(floating(output)), None)
    return len(first) if first is not None and first.dim() else 1


def _mean(values: list[tuple[float, int]], batches: int) -> float | None:
    """Weighted by samples; None where a batch had none."""
    if len(values) < batches:
        return None
    total = sum(size for _, size in values)
    return sum(value * size for value, size in values) / total if total else None
