"""One bit per element of what an activation passes: packed and unpacked in a kernel.

A tile's last axis lies along a run of `backends/masks.py`, lowest bit first; it begins on a byte.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import LEAKY_SLOPE, constant


@triton.jit
def passes(z, ACTIVATION: tl.constexpr):
    """Where relu or leaky_relu has slope 1."""
    if ACTIVATION == "relu":
        ones = (z <= 0) == 0  # asked so that a NaN passes
    else:
        ones = z > 0
    return ones


@triton.jit
def packed(ones, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """(ROWS, BLOCK/8) bytes of a (ROWS, BLOCK) tile; BLOCK is a multiple of 8."""
    bits = tl.reshape(ones.to(tl.int32), (ROWS, BLOCK // 8, 8))
    return tl.sum(bits << tl.arange(0, 8)[None, None, :], 2).to(tl.uint8)


@triton.jit
def unpacked(octets, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """The boolean (ROWS, BLOCK) tile of (ROWS, BLOCK/8) bytes."""
    bits = (octets.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(bits, (ROWS, BLOCK)) != 0


@triton.jit
def through(dy, mask, byte, bit, inside, ACTIVATION: tl.constexpr):
    """dz of relu or leaky_relu: dy where the bit is set, else 0 or dy times the slope.

    `mask` points at the bytes; byte and bit say where each element's is.
    """
    ones = (tl.load(mask + byte, mask=inside, other=0) >> bit.to(tl.uint8)) & 1
    if ACTIVATION == "relu":
        dz = tl.where(ones != 0, dy, 0.0)
    else:
        dz = tl.where(ones != 0, dy, dy * constant(dy, LEAKY_SLOPE))
    return dz
