"""Whether a sample's answer in inference mode depends on the samples beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normwright.doctor.missing import SkipError
from normwright.doctor.statistics.modes import outputs_of
from normwright.doctor.statistics.sight import Sight
from normwright.doctor.statistics.sights import sighted
from normwright.doctor.subject import NoLossError, Subject, target_of
from normwright.network.calling import tensors_of
from normwright.statistics.batches import samples_in
from normwright.statistics.untouched import untouched

# Elements of each sample that are compared of a normaliser's input and output.
_ELEMENTS = 256


@dataclass(frozen=True)
class CompanyFacts:
    """A batch against its halves, in inference mode.

    Args:
        samples: of the batch.
        outputs: relative difference of the outputs, in their deviations.
        rounding: what the order of sums may explain of it, by the outputs' dtype.
        layers: normalisers that make it so, with the relative difference of what they give, in the order of
            the forward pass: those that take the batch's moments, or whose output differs where their input
            does not.
        by_second_axis: halves along the second axis of the input give what the whole gives: it may be that
            of the samples, as of (time, batch, features).
    """

    samples: int
    outputs: float
    rounding: float
    layers: tuple[tuple[str, float], ...]
    by_second_axis: bool


def company_of(twin: Subject) -> CompanyFacts:
    """Runs a batch and its halves.

    Args:
        twin: a copy whose modules are all in inference mode; it is left as it was.
    Raises:
        SkipError: no batch can be halved.
        Whatever the network raises.
    """
    batch = max(twin.batches, key=samples_in)
    samples = samples_in(batch)
    try:
        target = target_of(batch)
    except NoLossError:
        target = None
    if isinstance(target, Tensor) and target.dim() and len(target) != samples:
        raise SkipError(f"the input's first axis has {samples}, but the target's {len(target)} samples")
    if samples < 2:
        raise SkipError("no batch has two samples")
    cuts = slice(0, samples // 2), slice(samples // 2, samples)
    whole = _run(twin, batch)
    try:
        first, second = (_run(twin, _cut(batch, samples, cut)) for cut in cuts)
    except Exception as error:
        raise SkipError(f"half a batch cannot be run: {type(error).__name__}: {error}") from error
    pairs = _pairs(whole.outputs, first.outputs, second.outputs, samples)
    if not pairs:
        raise SkipError("the outputs have no axis of samples")
    rounding = max(_rounding(one.dtype) for one, _ in pairs)
    apart = _apart(pairs)
    if (
        apart > rounding
        and _apart(list(zip(whole.outputs, _run(twin, batch).outputs, strict=False))) > rounding
    ):
        raise SkipError("the network's answer in inference mode is not the same when it is run again")
    layers = tuple(_leaking(whole, first, second, rounding))
    by_second = apart > rounding and not layers and _agrees_by_second_axis(twin, batch, whole, rounding)
    return CompanyFacts(samples, apart, rounding, layers, by_second)


def _leaking(whole: _Run, first: _Run, second: _Run, rounding: float) -> Iterator[tuple[str, float]]:
    """The normalisers that make it so, and by how much."""
    for name, seen in whole.layers.items():
        halves = [run.layers[name] for run in (first, second) if name in run.layers]
        if len(halves) < 2:
            continue
        x, y = torch.cat([half.x for half in halves]), torch.cat([half.y for half in halves])
        of_output = _apart([(seen.y, y)])
        # a layer above one that leaks is given other inputs, and is named where it does so itself
        given_alike = seen.x.shape == x.shape and _apart([(seen.x, x)]) <= rounding
        if of_output > rounding and (seen.by_batch or given_alike):
            yield name, of_output


def _agrees_by_second_axis(twin: Subject, batch: Any, whole: _Run, rounding: float) -> bool:
    """Whether halves along the second axis give what the whole gives."""
    samples = next((tensor.shape[1] for tensor in tensors_of(batch) if tensor.dim() > 1), 1)
    if samples < 2:
        return False
    cuts = slice(0, samples // 2), slice(samples // 2, samples)
    try:
        first, second = (_run(twin, _cut(batch, samples, cut, axis=1)).outputs for cut in cuts)
    except Exception:  # the axis is that of features
        return False
    along = (_pairs(whole.outputs, first, second, samples, axis) for axis in (1, 0))
    pairs = next(filter(None, along), [])
    return bool(pairs) and _apart(pairs) <= rounding


def _pairs(
    whole: list[Tensor], first: list[Tensor], second: list[Tensor], samples: int, axis: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Outputs of the whole, each with what its halves gave of the same samples."""
    if len(first) == len(whole) == len(second):
        found = [
            (one, torch.cat(halves, axis))
            for one, *halves in zip(whole, first, second, strict=True)
            if one.dim() > axis and one.shape[axis] == samples and all(half.dim() > axis for half in halves)
        ]
    else:  # those of each sample by itself, as of detections
        alike = len(whole) == len(first) + len(second)
        found = list(zip(whole, [*first, *second], strict=True)) if alike else []
    return [(one, other) for one, other in found if one.shape == other.shape]


@dataclass(frozen=True, eq=False)
class _Seen:
    """A part of what a normaliser was given and gave, (N, …) each."""

    by_batch: bool
    x: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class _Run:
    """What a batch came to."""

    outputs: list[Tensor]
    layers: dict[str, _Seen]


def _run(twin: Subject, batch: Any) -> _Run:
    given: dict[str, Tensor] = {}
    layers: dict[str, _Seen] = {}

    def see(sight: Sight) -> None:
        given.setdefault(sight.layer, _some(sight.x))

    def answered(sight: Sight, y: object) -> None:
        if sight.layer not in layers and isinstance(y, Tensor) and y.dim():
            layers[sight.layer] = _Seen(sight.by_batch and not sight.per_sample, given[sight.layer], _some(y))

    with untouched(twin.network, ()), sighted(twin.network, see, answered):
        outputs = outputs_of(twin.outputs(batch))
    return _Run(outputs, layers)


def _some(x: Tensor) -> Tensor:
    rows = x.detach().reshape(len(x), -1)
    return rows[:, :: max(1, rows.shape[1] // _ELEMENTS)].clone()


def _cut(value: Any, samples: int, part: slice, axis: int = 0) -> Any:
    """A part of every tensor or list of so many samples in a batch."""
    if isinstance(value, Tensor):
        holds = value.dim() > axis and value.shape[axis] == samples
        return value[(slice(None),) * axis + (part,)] if holds else value
    if isinstance(value, Mapping):
        return {key: _cut(item, samples, part, axis) for key, item in value.items()}
    if isinstance(value, list | tuple) and any(
        isinstance(item, Tensor | Mapping | list | tuple) for item in value
    ):
        items = [_cut(item, samples, part, axis) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    cut = isinstance(value, list | tuple) and len(value) == samples and axis == 0
    return value[part] if cut else value


def _apart(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """‖one - other‖/‖one - its mean over the samples‖; 0 for what cannot be compared.

    A fresh network may answer all samples alike but for the last digits: what is small beside ‖one‖ is 0.
    """
    squares = whole = 0.0
    for one, other in pairs:
        if one.shape == other.shape:
            apart = float((one.double() - other.double()).norm())
            if apart > _lost(one.dtype) * float(one.double().norm()):
                squares += apart**2
            whole += float((one.double() - one.double().mean(0)).square().sum())
    return math.sqrt(squares / whole) if whole > 0 else 0.0


def _lost(dtype: torch.dtype) -> float:
    """What sums in another order may change of a tensor's size, over many layers."""
    return min(64 * torch.finfo(dtype).eps, 0.1)


def _rounding(dtype: torch.dtype) -> float:
    """Half the digits: sums in another order lose the last few, and layers add them up."""
    return max(1e-3, math.sqrt(torch.finfo(dtype).eps))
