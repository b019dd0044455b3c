"""The last step of a parameter's gradient: the programs' parts added up, in one order, without atomics."""

import triton
import triton.language as tl


@triton.jit
def add_parts(
    dweight_parts,
    dbias_parts,
    dweight,
    dbias,
    parts,
    length,
    CHANNELS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Σ over the first axis of (parts, length), into (length,).

    Where CHANNELS is not 0, parts are (parts, space, CHANNELS) and the result (CHANNELS, space).
    """
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < length
    to = column
    if CHANNELS != 0:
        to = column % CHANNELS * (length // CHANNELS) + column // CHANNELS
    if dweight is not None:
        total = _total(dweight_parts, parts, length, column, inside, PARTS, BLOCK)
        tl.store(dweight + to, total.to(dweight.dtype.element_ty), mask=inside)
    if dbias is not None:
        total = _total(dbias_parts, parts, length, column, inside, PARTS, BLOCK)
        tl.store(dbias + to, total.to(dbias.dtype.element_ty), mask=inside)


@triton.jit
def _total(source, parts, length, column, inside, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    total = tl.zeros((PARTS, BLOCK), source.dtype.element_ty)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        where = (part < parts)[:, None] & inside[None, :]
        total += tl.load(
            source + part[:, None].to(tl.int64) * length + column[None, :], mask=where, other=0.0
        )
    return tl.sum(total, 0)
