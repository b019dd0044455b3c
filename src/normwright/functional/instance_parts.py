"""Sweeps over a batch of instances, of channels of samples, each of which has a map of its own.

To an operator on channels some instances are one sample, (1, M, *space), with a channel for each of them. Two
orders of memory can be seen so without a copy: all instances end to end where x is contiguous, and one sample
at a time where its channels lie innermost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype

_channel_affine = torch.ops.normwright.channel_affine.default
_channel_affine_backward = torch.ops.normwright.channel_affine_backward.default
_channel_affine_out = torch.ops.normwright.channel_affine_out.default
_channel_moments = torch.ops.normwright.channel_moments.default

# Elements of a sample below which a call for each costs more than a copy of the batch.
_WORTH_A_CALL = 1 << 12


class Parts(NamedTuple):
    """How a batch is cut into parts of `instances` each: it is a single one where they lie end to end."""

    end_to_end: bool
    instances: int

    def of(self, x: Tensor) -> Sequence[Tensor]:
        """Of x, or of a tensor that lies in memory as x does."""
        return [x.view(1, self.instances, -1)] if self.end_to_end else x.split(1)

    def of_instances(self, *vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Of vectors (N·C,), or (…, N·C), those of each part."""
        return zip(*(vector.split(self.instances, -1) for vector in vectors), strict=True)

    def of_channels(self, vector: Tensor, x: Tensor) -> Sequence[Tensor]:
        """Of a vector (C,), the same for every sample of x."""
        return [vector.expand(x.shape[:2]).reshape(-1)] if self.end_to_end else [vector] * len(x)

    def results(self, x: Tensor) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """Memory like x's and its parts; None where an operator's own result, which is quicker, is all."""
        if self.end_to_end:
            return None, [None]
        whole = torch.empty_like(x)
        return whole, self.of(whole)


def parts_of(x: Tensor) -> Parts | None:
    """How x can be cut; None where it has to be made contiguous first."""
    samples, channels = x.shape[:2]
    if x.is_contiguous():
        return Parts(True, samples * channels)
    innermost = x.movedim(1, -1).is_contiguous()
    return Parts(False, channels) if innermost and x[0].numel() >= _WORTH_A_CALL else None


def affine(out: Tensor | None, *call: Any) -> Tensor:
    """`channel_affine`, written to `out` where there is one."""
    if out is None:
        y: Tensor = _channel_affine(*call)
        return y
    _channel_affine_out(*call, out)
    return out


def laid_out_like(y: Tensor, x: Tensor) -> Tensor:
    """y, copied where it does not lie in memory as x does."""
    return y if y.stride() == x.stride() else torch.empty_like(x, dtype=y.dtype).copy_(y)


def known_parts(x: Tensor) -> Parts:
    """How x is cut, which can be."""
    parts = parts_of(x)
    assert parts is not None
    return parts


def in_any_order(function: Callable[..., Any], x: Tensor, *call: Any) -> Any:
    """function(x, *call), y or a tuple that begins with it, by way of a copy where x cannot be cut.

    y has x's memory format, if x is contiguous or has its channels innermost.
    """
    if parts_of(x) is not None:
        return function(x, *call)
    found = function(x.contiguous(), *call)
    if not x.movedim(1, -1).is_contiguous():
        return found
    y = found if isinstance(found, Tensor) else found[0]
    y = y.movedim(1, -1).contiguous().movedim(-1, 1)
    return y if isinstance(found, Tensor) else (y, *found[1:])


class Maps(NamedTuple):
    """y = activation((x - centre)·scale + shift), each (N·C,), in `compute_dtype(x)`."""

    centre: Tensor
    scale: Tensor
    shift: Tensor
    activation: str | None


def instance_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each instance, (N·C,)."""
    found = [_channel_moments(part) for part in known_parts(x).of(x)]
    mean, m2 = (torch.cat([part[i] for part in found]) for i in (1, 2))
    return mean, m2 / found[0][0]


def mapped_instances(x: Tensor, maps: Maps) -> Tensor:
    """y."""
    parts = known_parts(x)
    whole, outs = parts.results(x)
    vectors = parts.of_instances(maps.scale, maps.shift, maps.centre, torch.ones_like(maps.scale))
    for seen, out, vector in zip(parts.of(x), outs, vectors, strict=True):
        y = affine(out, seen, None, *vector, 0.0, maps.activation)
    return y.view(x.shape) if whole is None else whole


def map_gradients(dy: Tensor, x: Tensor, maps: Maps) -> list[Tensor]:
    """Σdz·(x - centre) and Σdz of each instance, (N·C,): the gradients by scale and shift."""
    parts, found = known_parts(x), []
    vectors = parts.of_instances(maps.scale, maps.shift, maps.centre, torch.ones_like(maps.scale))
    for dy_part, seen, vector in zip(parts.of(dy), parts.of(x), vectors, strict=True):
        call = (*vector, 0.0, maps.activation, DWEIGHT | DBIAS)
        found.append(_channel_affine_backward(dy_part, seen, None, *call)[2:])
    return [torch.cat(of_parts) for of_parts in zip(*found, strict=True)]


def _lift(slope: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What x is multiplied by, and the slope divided, where that would be lost: x beyond 1e15 or so."""
    lost = (slope != 0) & (slope.abs() < torch.finfo(dtype).tiny)
    return torch.where(lost, 2.0**-100, 1.0).to(dtype) if bool(lost.any()) else None


def instance_gradient(
    dy: Tensor, x: Tensor, maps: Maps, mean: Tensor, dmean: Tensor, dvariance: Tensor
) -> Tensor:
    """dx, given the gradients by the mean and the variance of each instance."""
    parts, dtype, size = known_parts(x), compute_dtype(x), x.shape[2:].numel()
    level, slope = mean.to(dtype), dvariance * (2 / size)
    constant = (dmean / size + (level - mean) * slope).to(dtype)
    one, lift = torch.ones_like(level), _lift(slope, dtype)
    lifted = [one if lift is None else lift, (slope if lift is None else slope / lift).to(dtype), constant]
    lifted.append(level if lift is None else level * lift)
    vectors = parts.of_instances(maps.scale, maps.shift, maps.centre, one, 0 * one, *lifted)
    # Half types are widened: their gradient is a sum of two terms, and rounded once.
    wide_dy, wide = dy.to(dtype), x.to(dtype)
    whole, outs = parts.results(wide)
    for dy_part, seen, out, vector in zip(parts.of(wide_dy), parts.of(wide), outs, vectors, strict=True):
        scale, shift, centre, ones, zeros, up, *by_x = vector
        if maps.activation is None:
            dx = affine(out, dy_part, None, scale, None, zeros, ones, 0.0, None)
        else:
            known = (scale, shift, centre, ones, 0.0, maps.activation)
            dx = _channel_affine_backward(dy_part, seen, None, *known, DX)[0]
        if lift is not None:
            seen = _channel_affine(seen, None, up, None, zeros, ones, 0.0, None)
        # In the memory of its own residual: fresh pages cost as much as the arithmetic.
        affine(dx if out is None else out, seen, dx, *by_x, ones, 0.0, None)
    return (dx.view(x.shape) if whole is None else whole).to(x.dtype)
