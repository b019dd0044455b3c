"""Judges a folded network by its error against the unfolded one on an example, and against float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from normwright.errors import DataError, FoldError, OptionError
from normwright.network.calling import Call, tensors_of, unknown_in, widened
from normwright.network.copying import in_dtype
from normwright.network.folding.measure import same_random_numbers
from normwright.network.folding.report import FoldDifference

# The folded network's rounding errors come from as many operations as the unfolded one's, so that their
# largest are alike. Below a few ulps, or over few elements, the ratio of the two is noise. They are not alike
# where a convolution sums from a shift that is far larger than what it sums (running statistics that are not
# those of its outputs): each term is rounded at the shift's size, where the unfolded network rounds once.
TIMES_UNFOLDED = 4.0
LEAST_ULPS = 4.0

# Inputs near the example, drawn where the example alone speaks against the fold: rounding errors that differ
# by chance do so no longer, and a fold that is wrong stays wrong.
_MORE_EXAMPLES = 7
_NEAR = 1e-3


@dataclass(frozen=True)
class _Errors:
    """Of one output: largest errors, and the same in ulps: of the difference, folded, and unfolded.

    Args:
        scale: its largest magnitude; 0 of what is not floating-point.
        eps: of its dtype; likewise.
        in_float64: the difference where both networks run in float64; known where it is asked for.
        alone: the unfolded network runs in float64 alone, so that its own error is unknown.
    """

    difference: tuple[float, float]
    folded: tuple[float, float] | None
    unfolded: tuple[float, float] | None
    scale: float
    eps: float
    in_float64: float = 0.0
    alone: bool = False

    def most(self, other: _Errors) -> _Errors:
        """The larger of each."""
        pairs = [
            None if one is None or two is None else (max(one[0], two[0]), max(one[1], two[1]))
            for one, two in (
                (self.difference, other.difference),
                (self.folded, other.folded),
                (self.unfolded, other.unfolded),
            )
        ]
        assert pairs[0] is not None
        scale, in_float64 = max(self.scale, other.scale), max(self.in_float64, other.in_float64)
        alone = self.alone or other.alone
        return _Errors(pairs[0], pairs[1], pairs[2], scale, self.eps, in_float64, alone)

    @property
    def near(self) -> float:
        """Half of its digits."""
        return math.sqrt(self.eps) * self.scale

    @property
    def is_decided(self) -> bool:
        """Whether rounding has decided something in the unfolded network, as which is larger in top-k.

        Its own error is then so large that as much as the output itself would be allowed, and a wrong fold
        would pass. In float64, where next to nothing is left to rounding, the two networks must be near.
        """
        return self.unfolded is not None and TIMES_UNFOLDED * self.unfolded[0] > self.scale

    @property
    def judged(self) -> float:
        """What must not be too large."""
        if self.folded is None:
            return self.difference[0]
        return self.in_float64 if self.is_decided else self.folded[0]

    @property
    def against(self) -> str:
        """What it is an error against."""
        if self.folded is None:
            return "the unfolded network"
        return "the unfolded network, where both run in float64," if self.is_decided else "float64"

    def allowed(self, tolerance: float | None, margin: float) -> float:
        """How large it may be; a margin above 1 lets no more than half of the digits be lost."""
        if tolerance is not None:
            return tolerance
        assert self.unfolded is not None
        if self.is_decided or self.alone:
            return self.near
        limit = max(TIMES_UNFOLDED * self.unfolded[0], LEAST_ULPS * _ulp(self.scale, self.eps))
        return max(limit, min(margin * limit, self.near))


def compare(
    unfolded: nn.Module, folded: nn.Module, call: Call, tolerance: float | None, *, margin: float = 1.0
) -> FoldDifference:
    """The errors of the folded network.

    Args:
        unfolded: a copy of the network, for it is run.
        folded: a copy of the folded one.
        call: the example.
        tolerance: largest error against float64, in the output's unit; None for at most 4 times the unfolded
            network's own, or 4 ulps, or half of the output's digits where it runs in float64 alone. Where
            that would be as much as the output itself, it is the largest difference of the two networks in
            float64, None for half of the output's digits; and where the network does not run in float64, the
            largest difference from the unfolded one.
        margin: how many times as much None allows.
    Raises:
        FoldError: the outputs differ in kind, or by more than the tolerance.
        OptionError: there is no tolerance, and the network does not run in float64.
        DataError: an output is empty, or nowhere finite: nothing can be judged by it.
    """
    before = outputs(unfolded, call)  # what the network raises is its own
    _check_judgeable(before)
    exact: nn.Module | None = None
    right: Sequence[Tensor] | None = None
    try:
        exact = in_dtype(unfolded, torch.float64)
        right = outputs(exact, call.map(widened))
    except Exception as error:
        exact = None
        if tolerance is None:
            raise OptionError(
                "the network must run in float64 for the fold's error to be judged, but does not "
                f"({type(error).__name__}: {error}): give tolerance=, the largest difference that is allowed"
            ) from error
    narrow = _in_float32(unfolded, call)
    found = _errors(before, right, folded, narrow, call)
    examples = 1
    more = 0 if tolerance is not None else _MORE_EXAMPLES
    generator = torch.Generator().manual_seed(0)
    while _failing(found, tolerance, margin) is not None and examples <= more:
        near = call.map(lambda x: _near(x, generator))
        before = outputs(unfolded, near)
        right = None if exact is None else outputs(exact, near.map(widened))
        more_found = _errors(before, right, folded, narrow, near)
        found = [one.most(two) for one, two in zip(found, more_found, strict=True)]
        examples += 1
    failing = _failing(found, tolerance, margin)
    if failing is not None:
        errors = found[failing]
        own_error = (
            "" if errors.unfolded is None else f" (the unfolded network's is {errors.unfolded[0]:.3g})"
        )
        which = "" if len(found) == 1 else f" in output {failing} of {len(found)}"
        allowed = errors.allowed(tolerance, margin)
        raise FoldError(
            f"the folded network's largest error against {errors.against} must be at most "
            f"{allowed:.3g} on the example{which}, but is {errors.judged:.3g}{own_error}"
            f"{_in_float64(exact, folded, call, failing, allowed)}: "
            "the network is left as it was; give a larger tolerance= if that is small enough"
        )
    largest = functools.reduce(_Errors.most, found)
    limit = max(errors.allowed(tolerance, margin) for errors in found)
    folded_error, folded_ulps = largest.folded or (None, None)
    unfolded_error, unfolded_ulps = largest.unfolded or (None, None)
    difference, ulps = largest.difference
    in_float64 = max((errors.in_float64 for errors in found if errors.is_decided), default=None)
    return FoldDifference(
        difference,
        folded_error,
        unfolded_error,
        ulps,
        folded_ulps,
        unfolded_ulps,
        limit,
        examples,
        in_float64,
    )


def _check_judgeable(found: Sequence[Tensor]) -> None:
    for place, output in enumerate(found):
        what = "is empty" if not output.numel() else "is nowhere finite"
        if not output.numel() or not bool(output.isfinite().any()):
            raise DataError(
                f"the example must give outputs by which the fold can be judged, but output {place} of "
                f"{len(found)} {what}: give an example such as the network is used with"
            )


def _failing(found: Sequence[_Errors], tolerance: float | None, margin: float) -> int | None:
    """The first output whose error is too large: each is judged by its own limit."""
    places = (place for place, e in enumerate(found) if not e.judged <= e.allowed(tolerance, margin))
    return next(places, None)


def _in_float64(exact: nn.Module | None, folded: nn.Module, call: Call, place: int, allowed: float) -> str:
    """Whether the fold is wrong or rounding is large, as where a sum starts from a shift that is larger."""
    if exact is None:
        return ""
    wide = call.map(widened)
    right, value = (outputs(network, wide)[place] for network in (exact, in_dtype(folded, torch.float64)))
    apart = _largest(value, right, 1.0)[0]
    what = "so that the rest of it is rounding" if apart <= allowed else "which is no rounding"
    return f"; where both run in float64 they differ by {apart:.3g}, {what}"


def _in_float32(network: nn.Module, call: Call) -> nn.Module | None:
    """A network of float64 in float32, for nothing wider than itself tells its error; else None.

    None too where it does not run so, as a program that was exported with its casts to float64.
    """
    tensors = [*network.parameters(), *network.buffers()]
    if not any(tensor.dtype == torch.float64 for tensor in tensors):
        return None
    narrow = in_dtype(network, torch.float32)
    try:
        outputs(narrow, call.map(_narrowed))
    except Exception:  # whatever a network raises in another dtype
        return None
    return narrow


def _errors(
    before: Sequence[Tensor],
    right: Sequence[Tensor] | None,
    folded: nn.Module,
    narrow: nn.Module | None,
    call: Call,
) -> list[_Errors]:
    """The errors of every output.

    Args:
        before: what the unfolded network gives.
        right: what it gives in float64, or None.
        folded: the folded network.
        narrow: the unfolded network in float32 where it is wider, or None.
        call: that the outputs are of.
    """
    after = outputs(folded, call)
    _check_kinds(before, after)
    exact: Sequence[Tensor | None] = [None] * len(before) if right is None else right
    rough: Sequence[Tensor | None] = [None] * len(before)
    if right is not None and narrow is not None:
        rough = outputs(narrow, call.map(_narrowed))
    found = [_errors_of(*parts) for parts in zip(before, after, exact, rough, strict=True)]
    if right is None or not any(errors.is_decided for errors in found):
        return found
    wide = outputs(in_dtype(folded, torch.float64), call.map(widened))
    return [
        replace(errors, in_float64=_largest(value, exactly, _ulp(errors.scale, errors.eps))[0])
        for errors, value, exactly in zip(found, wide, right, strict=True)
    ]


def _errors_of(before: Tensor, after: Tensor, right: Tensor | None, rough: Tensor | None) -> _Errors:
    scale = eps = 0.0
    if before.is_floating_point():
        scale, eps = _magnitude(before), torch.finfo(before.dtype).eps
    unit = _ulp(scale, eps)
    difference = _largest(after, before, unit)
    if right is None:
        return _Errors(difference, None, None, scale, eps)
    own = _largest(before, right, unit)
    if rough is not None:
        # Rounding errors are proportional to the unit: 2^29 times smaller in float64.
        error, ulps = _largest(rough.to(right.dtype), right, unit)
        smaller = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
        own = (max(own[0], smaller * error), max(own[1], smaller * ulps))
    alone = rough is None and before.dtype == torch.float64 and own[0] == 0
    return _Errors(difference, _largest(after, right, unit), own, scale, eps, alone=alone)


def _narrowed(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _near(value: Tensor, generator: torch.Generator) -> Tensor:
    if not value.is_floating_point():
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value.device)
    return (value * (1 + _NEAR * noise)).to(value.dtype)


def outputs(network: nn.Module, call: Call) -> list[Tensor]:
    """Every tensor of a call's output, without gradients, from the same random numbers each time.

    What the call holds stays as it is, and apart from the output: a network may write into its input.
    """
    with torch.no_grad(), same_random_numbers():
        output = call.map(torch.clone).of(network)
    unknown = unknown_in(output)
    found = [value.detach() for value in tensors_of(output)]
    if unknown or not found:
        what = f"an object of class {unknown!r}" if unknown else "no tensor at all"
        raise FoldError(
            "the network must return tensors, alone or in tuples, lists, mappings or dataclasses, for the "
            f"fold to be judged by them, but returns {what}: return what is in it instead, or leave it out "
            "(a Transformers decoder's cache: use_cache=False in the example)"
        )
    return found


def _check_kinds(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    kinds = [[(tuple(value.shape), value.dtype) for value in values] for values in (before, after)]
    if kinds[0] != kinds[1]:
        raise FoldError(
            f"the folded network must return tensors like the unfolded one's, {kinds[0]}, but returns "
            f"{kinds[1]}"
        )


def _largest(value: Tensor, right: Tensor, unit: float) -> tuple[float, float]:
    """The largest error of an output, in its unit and in ulps."""
    if not value.numel():
        return 0.0, 0.0
    if not value.is_floating_point():
        return (0.0, 0.0) if torch.equal(value, right.to(value.dtype)) else (math.inf, math.inf)
    apart = (value.double() - right.double()).abs()
    same = (value == right) | (value.isnan() & right.isnan())  # infinities too
    largest = float(torch.where(same, 0.0, apart).max())
    largest = math.inf if math.isnan(largest) else largest
    return largest, largest / unit


def _ulp(scale: float, eps: float) -> float:
    """The distance from a number to the next larger one of a dtype of this eps."""
    return math.ldexp(eps, math.frexp(scale)[1] - 1)


def _magnitude(value: Tensor) -> float:
    """The largest finite magnitude, and no less than the smallest normal number of the dtype."""
    finite = value[value.isfinite()].double().abs()
    return max(float(finite.max()) if finite.numel() else 0.0, torch.finfo(value.dtype).smallest_normal)
