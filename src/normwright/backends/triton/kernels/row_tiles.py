"""What the kernels of the rows family share: a tile of rows or of a piece of one, (ROWS, BLOCK).

EVEN says that BLOCK columns are all inside: nothing is then asked of an element, which is a third of the
instructions, and on these kernels instructions cost what memory does. Elements outside are read as 0 where
they are; nothing that is computed of them is stored, and a gradient of 0 keeps them out of sums.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import activate, derivative
from normwright.backends.triton.kernels.mask import packed, passes, through
from normwright.backends.triton.kernels.moments import distances_and_root, quotient, root_of_squares, split


@triton.jit
def inside_of(row_inside, column, length, EVEN: tl.constexpr):
    """Which elements of a tile are inside: (ROWS, BLOCK), or (ROWS, 1) where all columns are."""
    inside = row_inside[:, None]
    if not EVEN:
        inside = inside & (column < length)[None, :]
    return inside


@triton.jit
def parameter_of(source, column, length, CHANNELS: tl.constexpr, EVEN: tl.constexpr, COMPUTE: tl.constexpr):
    """The parameters of a tile's columns: (1, BLOCK)."""
    at = column
    if CHANNELS != 0:
        at = column % CHANNELS * (length // CHANNELS) + column // CHANNELS
    if EVEN:
        value = tl.load(source + at)
    else:
        value = tl.load(source + at, mask=column < length, other=0.0)
    return value.to(COMPUTE)[None, :]


@triton.jit
def row_moments(value, inside, count, CENTER: tl.constexpr, EVEN: tl.constexpr):
    """x - hi, and hi, lo and m2_root of each row of a tile, as columns."""
    if CENTER:
        hi = quotient(tl.sum(value, 1, keep_dims=True), count)
        centred = value - hi
        if not EVEN:
            centred = tl.where(inside, centred, 0.0)
        lo, m2_root = distances_and_root(centred, count)
    else:
        hi = tl.zeros((value.shape[0], 1), value.dtype)
        lo = hi
        centred = value
        m2_root = root_of_squares(value, 1)
    return centred, hi, lo, m2_root


@triton.jit
def added(z, bias, residual, at, inside, column, length, CHANNELS: tl.constexpr, EVEN: tl.constexpr):
    """z + bias + residual of those that are not None."""
    if bias is not None:
        z = z + parameter_of(bias, column, length, CHANNELS, EVEN, z.dtype)
    if residual is not None:
        z = z + tl.load(residual + at, mask=inside, other=0.0).to(z.dtype)
    return z


@triton.jit
def store_activated(
    z,
    y,
    mask,
    at,
    inside,
    row,
    row_inside,
    column,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Stores y, and the mask where it is not None."""
    tl.store(y + at, activate(z, ACTIVATION).to(y.dtype.element_ty), mask=inside)
    if mask is not None:
        bits = packed(passes(z, ACTIVATION) & inside, ROWS, BLOCK)
        byte = tl.min(column, 0) // 8 + tl.arange(0, BLOCK // 8)
        where = row_inside[:, None] & (byte < mask_bytes)[None, :]
        tl.store(mask + row[:, None] * mask_bytes + byte[None, :], bits, mask=where)


@triton.jit
def undone(dy, z, mask, at, inside, row, column, mask_bytes, ACTIVATION: tl.constexpr, COMPUTE: tl.constexpr):
    """dz: dy through the activation, by its mask where it is not None; 0 outside."""
    dz = tl.load(dy + at, mask=inside, other=0.0).to(COMPUTE)
    if mask is not None:
        byte = row[:, None] * mask_bytes + (column // 8)[None, :]
        dz = through(dz, mask, byte, (column % 8)[None, :], inside, ACTIVATION)
    elif ACTIVATION is not None:
        dz = dz * derivative(z, ACTIVATION)
    return dz


@triton.jit
def restandardised(
    x,
    mean,
    rstd,
    row,
    row_inside,
    at,
    inside,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
):
    """x̂ of a tile from moments that are known, 0 outside, and rstd as a column."""
    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    scale = tl.load(rstd + row[:, None], mask=row_inside[:, None], other=0.0).to(COMPUTE)
    if CENTER:
        hi, lo = split(tl.load(mean + row[:, None], mask=row_inside[:, None], other=0.0), COMPUTE)
        x_hat = (value - hi) * scale - lo * scale
        if not EVEN:
            x_hat = tl.where(inside, x_hat, 0.0)  # a mean may be too large for its distance from 0
    else:
        x_hat = value * scale
    return x_hat, scale
