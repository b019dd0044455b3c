"""Sweeps over a batch of instances, of channels of samples, each of which has a map of its own.

To an operator on channels some instances are one sample, (1, M, *space), with a channel for each of them. Two
orders of memory can be seen so without a copy: all instances end to end where x is contiguous, and one sample
at a time where its channels lie innermost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype

_channel_affine = torch.ops.normwright.channel_affine.default
_channel_affine_backward = torch.ops.normwright.channel_affine_backward.default
_channel_affine_out = torch.ops.normwright.channel_affine_out.default
_channel_moments = torch.ops.normwright.channel_moments.default

# Elements of a part: 1 MB of float32, so that what a call has written the next one finds in the second cache.
_PART = 1 << 18
# Elements of a sample below which a call for each costs more than a copy of the batch.
_WORTH_A_CALL = 1 << 12


class Parts(NamedTuple):
    """How a batch is cut into parts of whole instances: `instances` in each but the last."""

    end_to_end: bool
    instances: int

    def of(self, x: Tensor) -> Sequence[Tensor]:
        """Of x, or of a tensor that lies in memory as x does."""
        return self.whole(x).split(self.instances, 1) if self.end_to_end else x.split(1)

    def of_channels(self, vector: Tensor, x: Tensor) -> Sequence[Tensor]:
        """Of a vector (C,), the same for every sample of x."""
        if not self.end_to_end:
            return [vector] * len(x)
        return vector.expand(x.shape[:2]).reshape(-1).split(self.instances)

    def whole(self, x: Tensor) -> Tensor:
        """x as a single part, where its instances lie end to end."""
        return x.view(1, x.shape[0] * x.shape[1], -1)

    def longest(self, x: Tensor) -> Sequence[Tensor]:
        """The fewest parts of x that there can be, for a single sweep."""
        return (self.whole(x),) if self.end_to_end else x.split(1)


def parts_of(x: Tensor) -> Parts | None:
    """How x can be cut; None where it has to be made contiguous first."""
    if x.is_contiguous():
        return Parts(True, max(1, _PART // max(1, x.shape[2:].numel())))
    innermost = x.movedim(1, -1).is_contiguous()
    return Parts(False, x.shape[1]) if innermost and x[0].numel() >= _WORTH_A_CALL else None


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
    found = [_channel_moments(part) for part in known_parts(x).longest(x)]
    mean, m2 = (torch.cat([part[i] for part in found]) for i in (1, 2))
    return mean, m2 / found[0][0]


def mapped_instances(x: Tensor, maps: Maps) -> Tensor:
    """y."""
    parts, one = known_parts(x), torch.ones_like(maps.scale)
    *vectors, activation = (maps.scale, maps.shift, maps.centre, one, maps.activation)
    if parts.end_to_end:
        y: Tensor = _channel_affine(parts.whole(x), None, *vectors, 0.0, activation)
        return y.view(x.shape)
    y = torch.empty_like(x)
    split = (vector.split(parts.instances) for vector in vectors)
    for seen, out, *vector in zip(parts.of(x), parts.of(y), *split, strict=True):
        _channel_affine_out(seen, None, *vector, 0.0, activation, out)
    return y


def map_gradients(dy: Tensor, x: Tensor, maps: Maps) -> list[Tensor]:
    """Σdz·(x - centre) and Σdz of each instance, (N·C,): the gradients by scale and shift."""
    parts, one = known_parts(x), torch.ones_like(maps.scale)
    vectors = [maps.scale, maps.shift, maps.centre, one]
    split = [[part] if parts.end_to_end else part.split(parts.instances) for part in vectors]
    found = []
    for dy_part, seen, *vector in zip(parts.longest(dy), parts.longest(x), *split, strict=True):
        call = (*vector, 0.0, maps.activation, DWEIGHT | DBIAS)
        found.append(_channel_affine_backward(dy_part, seen, None, *call)[2:])
    return [torch.cat(of_parts) for of_parts in zip(*found, strict=True)]


def instance_gradient(
    dy: Tensor, x: Tensor, maps: Maps, mean: Tensor, dmean: Tensor, dvariance: Tensor
) -> Tensor:
    """dx, given the gradients by the mean and the variance of each instance."""
    parts, dtype, size = known_parts(x), compute_dtype(x), x.shape[2:].numel()
    level, slope = mean.to(dtype), (dvariance * (2 / size)).to(dtype)
    constant = (dmean / size + (level - mean) * slope).to(dtype)
    one, dx = torch.ones_like(maps.scale), torch.empty_like(x)
    vectors = (maps.scale, maps.shift, maps.centre, one, slope, constant, level, 0 * one)
    split = [vector.split(parts.instances) for vector in vectors]
    # Half types are widened: their gradient is a sum of two terms, and rounded once.
    narrow = x.dtype != dtype
    for dy_part, seen, out, scale, shift, centre, ones, *by_x, zeros in zip(
        parts.of(dy), parts.of(x), parts.of(dx), *split, strict=True
    ):
        wide_dy, wide = (dy_part.to(dtype), seen.to(dtype)) if narrow else (dy_part, seen)
        if maps.activation is None:
            part = wide_dy if narrow else out
            _channel_affine_out(wide_dy, None, scale, None, zeros, ones, 0.0, None, part)
        else:
            known = (scale, shift, centre, ones, 0.0, maps.activation)
            part = _channel_affine_backward(wide_dy, wide, None, *known, DX)[0]
        # In the memory of its own residual, where that is not the result.
        _channel_affine_out(wide, part, *by_x, ones, 0.0, None, part if narrow else out)
        if narrow:
            out.copy_(part)
    return dx
