"""The passes of whitening over its data, piece by piece so that a piece stays in cache.

Copies (a reading and a writing) that a training step costs: forward 2, the moments, the covariance and the
projection each reading x once and the last writing y; backward 2.5, its two sums and dx each reading x and
dy, and dx written. x is all that is kept of its size. Forward, one reading less would do, were the covariance
taken about a mean that is not known yet; backward is the least.

Elements are centred and scaled as they are read: z = (x − shift)/scale. shift is the mean, rounded to their
dtype, and what it is wrong by is put right in float64; scale is a power of two near the deviation, so that
it rounds nothing, and nothing overflows when it is squared. Products are summed in the elements' dtype
within a piece, and the pieces' in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.backends.moments import compute_dtype

# Elements in a piece: 1 MiB of float32, of which a piece has at most three at once. A GPU gains nothing by
# pieces; there they bound what is held beside x.
_PIECE, _DEVICE_PIECE = 2**18, 2**27


class Centring(NamedTuple):
    """How elements are read: z = (x − shift)/scale, and x − mean = scale·(z − low).

    Args:
        shift: (C,), in the elements' compute dtype.
        scale: (C,), float64, powers of two.
        low: (C,), float64: (mean − shift)/scale.
    """

    shift: Tensor
    scale: Tensor
    low: Tensor

    @classmethod
    def about(cls, mean: Tensor, deviation: Tensor | None, x: Tensor) -> Centring:
        """The centring about a float64 mean; without deviations the scale is 1."""
        shift = mean.to(compute_dtype(x))
        scale = torch.ones_like(mean) if deviation is None else power_of_two(deviation)
        return cls(shift, scale, (mean - shift.to(mean.dtype)) / scale)

    def columns(self, piece: Tensor, groups: int, by_rows: bool) -> Tensor:
        """z of a piece, as `_columns`."""
        shape = (1, -1, *[1] * (piece.dim() - 2))
        inverse = self.scale.reciprocal().to(self.shift.dtype)
        offset = -self.shift * inverse
        z = torch.addcmul(offset.view(shape), piece.to(offset.dtype), inverse.view(shape))
        return _columns(z, groups, by_rows)


def power_of_two(size: Tensor) -> Tensor:
    """The power of two above each, within what the inverse of a float32 holds; 1 for 0, infinity and NaN."""
    exponent = torch.frexp(size)[1].clamp(-100, 100)
    known = size.isfinite() & (size > 0)
    return torch.where(known, torch.ldexp(torch.ones_like(size), exponent), 1.0)


def covariance(x: Tensor, centring: Centring, groups: int) -> Tensor:
    """(G, d, d) float64, biased: Σ (x − mean)·(x − mean)ᵀ/m."""
    by_rows = _is_by_rows(x)
    total = centring.scale.new_zeros((groups, *[x.shape[1] // groups] * 2))
    for piece in _pieces(x):
        z = centring.columns(x[piece], groups, by_rows)
        total += _joined(torch.bmm(z, z.mT), total)
    low = centring.low.view(groups, -1, 1)
    scale = centring.scale.view(groups, -1, 1)
    count = x.numel() // x.shape[1]
    return (total / count - low @ low.mT) * (scale @ scale.mT)


def project(x: Tensor, centring: Centring, matrix: Tensor, offset: Tensor | None) -> Tensor:
    """matrix·(x − mean) + offset, in x's dtype and memory format.

    Args:
        matrix: (G, d, d), float64.
        offset: (C,), or None for 0.
    """
    groups, by_rows, y = len(matrix), _is_by_rows(x), torch.empty_like(x)
    of_z = matrix * centring.scale.view(groups, 1, -1)
    constant = -(of_z @ centring.low.view(groups, -1, 1))
    if offset is not None:
        constant = constant + offset.to(constant.dtype).view(groups, -1, 1)
    narrow, added = (tensor.to(centring.shift.dtype) for tensor in (of_z, constant))
    for piece in _pieces(x):
        z = centring.columns(x[piece], groups, by_rows)
        _write(y[piece], [(narrow, z)], added, by_rows)
    return y


def products(dy: Tensor, x: Tensor, centring: Centring, groups: int) -> tuple[Tensor, Tensor]:
    """Σ dy·(x − mean)ᵀ of each group, (G, d, d), and Σ dy, (G, d, 1); float64."""
    by_rows = _is_by_rows(x)
    total = centring.scale.new_zeros((groups, *[x.shape[1] // groups] * 2))
    sums = total.new_zeros((*total.shape[:2], 1))
    for piece in _pieces(x):
        z = centring.columns(x[piece], groups, by_rows)
        g = _columns(dy[piece].to(z.dtype), groups, by_rows)
        total += _joined(torch.bmm(g, z.mT), total)
        sums += _joined(g.sum(-1, keepdim=True), sums)
    low, scale = (part.view(groups, 1, -1) for part in (centring.low, centring.scale))
    return (total - sums @ low) * scale, sums


def combine(
    dy: Tensor, of_dy: Tensor, x: Tensor, centring: Centring, of_x: Tensor, constant: Tensor
) -> Tensor:
    """of_dy·dy + of_x·(x − mean) + constant, in x's dtype and memory format; matrices (G, d, d), float64."""
    groups, by_rows, dx = len(of_dy), _is_by_rows(x), torch.empty_like(x)
    of_z = of_x * centring.scale.view(groups, 1, -1)
    constant = constant - of_z @ centring.low.view(groups, -1, 1)
    first, second, added = (tensor.to(centring.shift.dtype) for tensor in (of_dy, of_z, constant))
    for piece in _pieces(x):
        z = centring.columns(x[piece], groups, by_rows)
        g = _columns(dy[piece].to(z.dtype), groups, by_rows)
        _write(dx[piece], [(first, g), (second, z)], added, by_rows)
    return dx


def _pieces(x: Tensor) -> Iterator[slice]:
    """Samples of the batch, as many as make a piece; the cut depends on the shape alone."""
    most = _PIECE if x.device.type == "cpu" else _DEVICE_PIECE
    step = max(1, most * len(x) // max(x.numel(), 1))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def _is_by_rows(x: Tensor) -> bool:
    """Whether the channels of one position lie side by side."""
    return x.dim() == 2 or x.stride(1) == 1


def _columns(piece: Tensor, groups: int, by_rows: bool) -> Tensor:
    """(B, d, K): a column per position, B a multiple of G; a view where the piece is dense."""
    size = piece.shape[1] // groups
    if by_rows:
        return piece.movedim(1, -1).reshape(-1, groups, size).permute(1, 2, 0)
    return piece.reshape(len(piece) * groups, size, -1)


def _joined(parts: Tensor, like: Tensor) -> Tensor:
    """(B, …) summed to (G, …), the shape and dtype of `like`."""
    return parts.view(-1, *like.shape).sum(0, dtype=like.dtype)


def _write(out: Tensor, terms: list[tuple[Tensor, Tensor]], constant: Tensor, by_rows: bool) -> None:
    """Σ matrix·columns + constant, written to a piece of a result."""
    groups, size, _ = constant.shape
    if by_rows:
        value = constant.mT
        for matrix, columns in terms:
            value = torch.baddbmm(value, columns.mT, matrix.mT)
        space = out.movedim(1, -1).shape[:-1]
        out.movedim(1, -1).unflatten(-1, (groups, size)).copy_(
            value.view(groups, *space, size).movedim(0, -2)
        )
        return
    value = constant.repeat(len(out), 1, 1)
    for matrix, columns in terms:
        value = torch.baddbmm(value, matrix.repeat(len(out), 1, 1), columns)
    out.copy_(value.view(out.shape))
