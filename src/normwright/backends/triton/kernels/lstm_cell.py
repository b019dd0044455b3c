"""A step of an LSTM around its normalisers, element by element: see `schema.py`.

The gates i, f, g and o of an element lie `units` apart in its row. Whatever is written may take the place of
what is read, for an element is read before it is written, by the program that writes it.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import activate


@triton.jit
def _places(elements, units, BLOCK: tl.constexpr):
    """Of the elements, of their gates i, and which there are."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return at, at + (at // units) * units * 3, at < elements


@triton.jit(do_not_specialize=["elements"])
def step(z, before, gates, cell, elements, units, COMPUTE: tl.constexpr, BLOCK: tl.constexpr):
    """The gates and c."""
    at, gate, inside = _places(elements, units, BLOCK)
    i = activate(tl.load(z + gate, mask=inside, other=0.0).to(COMPUTE), "sigmoid")
    f = activate(tl.load(z + gate + units, mask=inside, other=0.0).to(COMPUTE), "sigmoid")
    g = activate(tl.load(z + gate + 2 * units, mask=inside, other=0.0).to(COMPUTE), "tanh")
    o = activate(tl.load(z + gate + 3 * units, mask=inside, other=0.0).to(COMPUTE), "sigmoid")
    c = f * tl.load(before + at, mask=inside, other=0.0).to(COMPUTE) + i * g
    dtype = gates.dtype.element_ty
    tl.store(gates + gate, i.to(dtype), mask=inside)
    tl.store(gates + gate + units, f.to(dtype), mask=inside)
    tl.store(gates + gate + 2 * units, g.to(dtype), mask=inside)
    tl.store(gates + gate + 3 * units, o.to(dtype), mask=inside)
    tl.store(cell + at, c.to(dtype), mask=inside)


@triton.jit(do_not_specialize=["elements"])
def step_backward(
    dh,
    squashed,
    through,
    gates,
    before,
    dcell,
    dz,
    elements,
    units,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dz, and dcell moved to what c before gets."""
    at, gate, inside = _places(elements, units, BLOCK)
    i = tl.load(gates + gate, mask=inside, other=0.0).to(COMPUTE)
    f = tl.load(gates + gate + units, mask=inside, other=0.0).to(COMPUTE)
    g = tl.load(gates + gate + 2 * units, mask=inside, other=0.0).to(COMPUTE)
    o = tl.load(gates + gate + 3 * units, mask=inside, other=0.0).to(COMPUTE)
    dc = tl.load(dcell + at, mask=inside, other=0.0).to(COMPUTE)
    dc += tl.load(through + at, mask=inside, other=0.0).to(COMPUTE)
    do = tl.load(dh + at, mask=inside, other=0.0).to(COMPUTE)
    do *= tl.load(squashed + at, mask=inside, other=0.0).to(COMPUTE)
    df = dc * tl.load(before + at, mask=inside, other=0.0).to(COMPUTE)
    dtype = dz.dtype.element_ty
    tl.store(dz + gate, (dc * g * i * (1.0 - i)).to(dtype), mask=inside)
    tl.store(dz + gate + units, (df * f * (1.0 - f)).to(dtype), mask=inside)
    tl.store(dz + gate + 2 * units, (dc * i * (1.0 - g * g)).to(dtype), mask=inside)
    tl.store(dz + gate + 3 * units, (do * o * (1.0 - o)).to(dtype), mask=inside)
    tl.store(dcell + at, (dc * f).to(dtype), mask=inside)
