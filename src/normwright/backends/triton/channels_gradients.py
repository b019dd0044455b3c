"""The launches of a backward of the channels family, with the moments of the batch or with constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.moments import compute_dtype
from normwright.backends.normalised import Gradients
from normwright.backends.triton.arrange import Blank, dense_or_none
from normwright.backends.triton.channels_view import Channels
from normwright.backends.triton.kernels.channels_backward import backward_channels, reduce_gradients
from normwright.backends.triton.kernels.parameters import add_parts
from normwright.backends.triton.launch import cdiv, compute_type, empty, launch

_ADDED_PARTS, _ADDED_COLUMNS = 32, 64


class Given(NamedTuple):
    """What a backward operator is given; rstd is the variance where the moments are constants."""

    dy: Tensor
    x: Tensor
    residual: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    mask: Tensor | None
    mean: Tensor
    rstd: Tensor

    def arranged(self, seen: Channels, *, needs_x: bool) -> tuple[Tensor | None, ...]:
        """As the kernels take them."""
        large = (self.dy, self.x if needs_x else None, self.residual)
        small = (self.weight, self.bias, self.mask, self.mean, self.rstd)
        return (*map(seen.of, large), *map(dense_or_none, small))


class GradientBlanks(NamedTuple):
    """The results that are asked for."""

    dx: Blank | None
    dresidual: Blank | None
    dweight: Tensor | None
    dbias: Tensor | None

    @property
    def large(self) -> tuple[Tensor | None, Tensor | None]:
        """dx and dresidual as the kernels fill them."""
        return _dense(self.dx), _dense(self.dresidual)

    def filled(self) -> Gradients:
        """The results, after the kernels; None for each that was not asked for."""
        dx, dresidual = (None if result is None else result.filled() for result in self[:2])
        return dx, dresidual, self.dweight, self.dbias


def _dense(result: Blank | None) -> Tensor | None:
    return None if result is None else result.dense


def blank_gradients(
    blank: Callable[[Tensor], Blank], sources: Sequence[Tensor | None], wanted: int
) -> GradientBlanks:
    """Results like x, residual, weight and bias where asked for; `blank` makes the large ones."""
    x, residual, weight, bias = sources
    assert x is not None
    return GradientBlanks(
        blank(x) if wanted & DX else None,
        blank(x if residual is None else residual) if wanted & DRESIDUAL else None,
        torch.empty_like(weight) if wanted & DWEIGHT and weight is not None else None,
        torch.empty_like(bias) if wanted & DBIAS and bias is not None else None,
    )


def _parts(seen: Channels, x: Tensor, asked: bool) -> Tensor | None:
    return empty(x, seen.tile.ranges, seen.channels, dtype=compute_dtype(x)) if asked else None


def _options(seen: Channels, x: Tensor, activation: str | None) -> tuple[Any, ...]:
    return activation, compute_type(x), *seen.cut, seen.tile.stages


def reduce_alone(
    seen: Channels,
    given: Given,
    results: GradientBlanks,
    activation: str | None,
    variance_eps: float | None = None,
) -> None:
    """One launch, and one more for the parameters. dx is that of constant moments, with variance + eps."""
    if all(result is None for result in results):
        return
    x = given.x
    parts = [_parts(seen, x, result is not None) for result in results[2:]]
    needs_x = parts[0] is not None or (activation is not None and given.mask is None)
    tensors = (*given.arranged(seen, needs_x=needs_x), *results.large, *parts)
    options = (variance_eps or 0.0, variance_eps is not None, *_options(seen, x, activation))
    sizes = (*seen.sizes, *seen.mask_bytes)
    launch(reduce_gradients, seen.grid)(*tensors, *sizes, *options, num_warps=seen.tile.warps)
    add_ranges(parts, results[2:], seen.tile.ranges, seen.channels)


def add_ranges(
    parts: Sequence[Tensor | None], sums: Sequence[Tensor | None], ranges: int, channels: int
) -> None:
    """dweight and dbias, where they are asked for, from their parts (ranges, channels)."""
    if all(total is None for total in sums):
        return
    grid = (cdiv(channels, _ADDED_COLUMNS),)
    shape = (ranges, channels, 0, _ADDED_PARTS, _ADDED_COLUMNS)
    launch(add_parts, grid)(*parts, *sums, *shape, num_warps=4)


def reduce_then_store(seen: Channels, given: Given, results: GradientBlanks, activation: str | None) -> None:
    """Two launches: the sums, then all results."""
    x = given.x
    parts = (_parts(seen, x, True), _parts(seen, x, True))
    tensors = given.arranged(seen, needs_x=True)
    sizes = (*seen.sizes, *seen.mask_bytes)
    options = _options(seen, x, activation)
    warps = seen.tile.warps
    launch(reduce_gradients, seen.grid)(
        *tensors, None, None, *parts, *sizes, 0.0, False, *options, num_warps=warps
    )
    filled = (*results.large, *parts, *results[2:])
    launch(backward_channels, seen.grid)(*tensors, *filled, *sizes, *options, seen.ranges, num_warps=warps)
