"""Measures a folded network against the unfolded one on an example: its error and its time."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normwright.errors import FoldError, OptionError
from normwright.network.calling import Call, tensors_of, widened
from normwright.network.folding.report import FoldDifference, FoldSpeed

# The folded network's rounding errors come from as many operations as the unfolded one's, so that their
# largest are alike. Below a few ulps, or over few elements, the ratio of the two is noise.
TIMES_UNFOLDED = 4.0
LEAST_ULPS = 4.0

# Inputs near the example, drawn where the example alone speaks against the fold: rounding errors that differ
# by chance do so no longer, and a fold that is wrong stays wrong.
_MORE_EXAMPLES = 7
_NEAR = 1e-3


@dataclass(frozen=True)
class _Errors:
    """Largest errors, and the same in ulps: of the difference, of the folded and of the unfolded network."""

    difference: tuple[float, float]
    folded: tuple[float, float] | None
    unfolded: tuple[float, float] | None
    unit: float


def compare(unfolded: nn.Module, folded: nn.Module, call: Call, tolerance: float | None) -> FoldDifference:
    """The errors of the folded network.

    Args:
        unfolded: a copy of the network, for it is run.
        folded: a copy of the folded one.
        call: the example.
        tolerance: largest error against float64, in the output's unit; None for at most 4 times the unfolded
            network's own, or 4 ulps. Where the network does not run in float64 it is the largest difference
            from the unfolded one.
    Raises:
        FoldError: the outputs differ in kind, or by more than the tolerance.
        OptionError: there is no tolerance, and the network does not run in float64.
    """
    outputs(unfolded, call)  # what it raises is its own
    try:
        exact: nn.Module | None = copy.deepcopy(unfolded).double()
        outputs(exact, call.map(widened))  # type: ignore[arg-type]
    except Exception as error:
        exact = None
        if tolerance is None:
            raise OptionError(
                "the network must run in float64 for the fold's error to be judged, but does not "
                f"({type(error).__name__}: {error}): give tolerance=, the largest difference that is allowed"
            ) from error
    found = [_errors(unfolded, folded, exact, call)]
    more = 0 if tolerance is not None else _MORE_EXAMPLES
    generator = torch.Generator().manual_seed(0)
    while _judged(found) > _allowed(found, tolerance) and len(found) <= more:
        found.append(_errors(unfolded, folded, exact, call.map(lambda x: _near(x, generator))))
    judged, allowed = _judged(found), _allowed(found, tolerance)
    difference, ulps = _most(part.difference for part in found)
    if exact is None:
        measured = FoldDifference(difference, None, None, ulps, None, None, allowed, len(found))
    else:
        folded_error, folded_ulps = _most(part.folded for part in found)
        own, own_ulps = _most(part.unfolded for part in found)
        measured = FoldDifference(
            difference, folded_error, own, ulps, folded_ulps, own_ulps, allowed, len(found)
        )
    if not judged <= allowed:
        against = "the unfolded network" if exact is None else "float64"
        own_error = "" if exact is None else f" (the unfolded network's is {measured.unfolded:.3g})"
        raise FoldError(
            f"the folded network's largest error against {against} must be at most {allowed:.3g} on the "
            f"example, but is {judged:.3g}{own_error}: the network is left as it was; give a larger "
            "tolerance= if that is small enough"
        )
    return measured


def _errors(unfolded: nn.Module, folded: nn.Module, exact: nn.Module | None, call: Call) -> _Errors:
    before, after = outputs(unfolded, call), outputs(folded, call)
    _check_kinds(before, after)
    unit = max((_ulp(value) for value in before if value.is_floating_point()), default=0.0)
    difference = _largest(after, before, before)
    if exact is None:
        return _Errors(difference, None, None, unit)
    right = outputs(exact, call.map(widened))
    return _Errors(difference, _largest(after, right, before), _largest(before, right, before), unit)


def _judged(found: Sequence[_Errors]) -> float:
    return _most(part.difference if part.folded is None else part.folded for part in found)[0]


def _allowed(found: Sequence[_Errors], tolerance: float | None) -> float:
    if tolerance is not None:
        return tolerance
    own, _ = _most(part.unfolded for part in found)
    return max(TIMES_UNFOLDED * own, LEAST_ULPS * max(part.unit for part in found))


def _most(pairs: Iterable[tuple[float, float] | None]) -> tuple[float, float]:
    known = [pair for pair in pairs if pair is not None]
    return max(error for error, _ in known), max(ulps for _, ulps in known)


def _near(value: Tensor, generator: torch.Generator) -> Tensor:
    if not value.is_floating_point():
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value.device)
    return (value * (1 + _NEAR * noise)).to(value.dtype)


def outputs(network: nn.Module, call: Call) -> list[Tensor]:
    """Every tensor of a call's output, without gradients, from the same random numbers each time."""
    with torch.no_grad(), _same_random_numbers():
        return [value.detach() for value in tensors_of(call.of(network))]


def time_in_turn(networks: Sequence[nn.Module], call: Call, *, seconds: float) -> tuple[FoldSpeed, ...]:
    """The time of each network after the first, against the first.

    Args:
        networks: the unfolded one, and others.
        call: the example.
        seconds: about how long to go on, with at least 5 calls and at most 101 of each.
    """
    device = next((value.device for value in tensors_of([call.args, call.named])), torch.device("cpu"))
    taken: list[list[float]] = [[] for _ in networks]
    with torch.no_grad(), _same_random_numbers():
        for network in networks:
            call.of(network)  # what is made once is made now
        start = time.perf_counter()
        while len(taken[0]) < 5 or (time.perf_counter() - start < seconds and len(taken[0]) < 101):
            for network, times in zip(networks, taken, strict=True):
                _wait(device)
                begun = time.perf_counter()
                call.of(network)
                _wait(device)
                times.append(time.perf_counter() - begun)
    first = taken[0]
    return tuple(
        FoldSpeed(
            statistics.median(first),
            statistics.median(times),
            statistics.median(b / a for a, b in zip(first, times, strict=True)),
            len(times),
        )
        for times in taken[1:]
    )


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _check_kinds(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    kinds = [[(tuple(value.shape), value.dtype) for value in values] for values in (before, after)]
    if kinds[0] != kinds[1]:
        raise FoldError(
            f"the folded network must return tensors like the unfolded one's, {kinds[0]}, but returns "
            f"{kinds[1]}"
        )


def _largest(
    values: Sequence[Tensor], exact: Sequence[Tensor], like: Sequence[Tensor]
) -> tuple[float, float]:
    """The largest error of any output, and the largest in ulps."""
    error = ulps = 0.0
    for value, right, own in zip(values, exact, like, strict=True):
        if not value.numel():
            continue
        if not value.is_floating_point():
            if not torch.equal(value, right.to(value.dtype)):
                error = ulps = math.inf
            continue
        apart = (value.double() - right.double()).abs()
        same = (value == right) | (value.isnan() & right.isnan())  # infinities too
        largest = float(torch.where(same, 0.0, apart).max())
        largest = math.inf if math.isnan(largest) else largest
        error, ulps = max(error, largest), max(ulps, largest / _ulp(own))
    return error, ulps


def _ulp(value: Tensor) -> float:
    """The distance from the largest finite magnitude of a tensor to the next larger number of its dtype."""
    limits = torch.finfo(value.dtype)
    finite = value[value.isfinite()].double().abs()
    largest = max(float(finite.max()) if finite.numel() else 0.0, limits.smallest_normal)
    return math.ldexp(limits.eps, math.frexp(largest)[1] - 1)
