"""The cell of an LSTM: the kernel and plain PyTorch against the formula and its autograd in float64."""

from __future__ import annotations

import pytest
import torch
from tolerances import UNIT

from normwright.backends import eager
from normwright.backends.moments import compute_dtype

OPERATORS = torch.ops.normwright
FUNCTIONS = {
    "kernel": (OPERATORS.lstm_cell.default, OPERATORS.lstm_cell_backward.default),
    "plain": (eager.OPERATORS["lstm_cell"], eager.OPERATORS["lstm_cell_backward"]),
}
# Rows of less than a pack, of packs and a rest, as many as are worth a second thread; none.
SHAPES = [(1, 1), (3, 5), (4, 19), (128, 100), (0, 3)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

# Inputs are at most 2. A gate has 4 roundings (`ACTIVATION` in tolerances.py), and c, at most 3, those of
# two gates in each of two products, the products' and the sum's: fewer than 24. A gradient is a product of
# at most four factors: dh·s or dc, at most 4, c before, at most 2, and a slope of 1/4, or a gate and a slope
# of 1. Each factor has at most 3 roundings, and each product, of at most 4, one.
FORWARD_ROUNDINGS = 24
BACKWARD_ROUNDINGS = 4 * 3 + 3


def bound(dtype, roundings, size):
    """Of values of that size, computed in float32 or wider and stored in dtype."""
    return (roundings * UNIT[compute_dtype(torch.empty(0, dtype=dtype))] + UNIT[dtype]) * size


def draw(*shape, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 4 - 2).to(dtype)


def forward(z, before):
    """The gates and c, in float64."""
    i, f, g, o = z.double().chunk(4, 1)
    gates = [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()]
    return torch.cat(gates, 1), gates[1] * before.double() + gates[0] * gates[2]


def strided(tensor, layout):
    """The same values in memory that is sliced or lies by columns."""
    if layout == "contiguous":
        return tensor
    if layout == "sliced":
        return torch.stack([tensor, tensor + 1], 2)[..., 0]
    return tensor.t().contiguous().t()


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "columns"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("which", FUNCTIONS)
def test_forward_is_the_formula(which, shape, dtype, layout):
    n, units = shape
    z, before = (draw(n, size, seed=size, dtype=dtype) for size in (4 * units, units))
    gates, cell = (strided(torch.full_like(tensor, torch.nan), layout) for tensor in (z, before))
    FUNCTIONS[which][0](strided(z, layout), strided(before, layout), gates, cell)
    for found, expected in zip((gates, cell), forward(z, before), strict=True):
        assert ((found.double() - expected).abs() <= bound(dtype, FORWARD_ROUNDINGS, 3)).all()


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "columns"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("which", FUNCTIONS)
def test_backward_is_autograd_s(which, shape, dtype, layout):
    n, units = shape
    dh, squashed, through, before, dcell = (draw(n, units, seed=seed, dtype=dtype) for seed in range(5))
    z = draw(n, 4 * units, seed=5, dtype=torch.float64)
    # As the kernel is given them, rounded: z is where they are exact.
    gates = forward(z, before)[0].to(dtype)
    i, f, g, o = gates.double().chunk(4, 1)
    z = torch.cat([i.logit(), f.logit(), g.atanh(), o.logit()], 1).requires_grad_()
    leaf = before.double().clone().requires_grad_()
    activated, cell = forward(z, leaf)
    h = activated[:, 3 * units :] * squashed.double()
    given = [dh.double(), dcell.double() + through.double()]
    expected = torch.autograd.grad([h, cell], [z, leaf], given)

    dz = strided(torch.full((n, 4 * units), torch.nan, dtype=dtype), layout)
    moved = strided(dcell.clone(), layout)
    kept = (strided(tensor, layout) for tensor in (dh, squashed, through, gates, before))
    FUNCTIONS[which][1](*kept, moved, dz)
    for found, theirs in zip((dz, moved), expected, strict=True):
        assert ((found.double() - theirs).abs() <= bound(dtype, BACKWARD_ROUNDINGS, 4)).all()


def test_gates_may_take_the_place_of_z_and_c_of_what_was_before():
    z, before = (draw(4, size, seed=size, dtype=torch.float32) for size in (76, 19))
    gates, cell = torch.empty_like(z), torch.empty_like(before)
    OPERATORS.lstm_cell(z, before, gates, cell)
    OPERATORS.lstm_cell(z, before, z, before)
    assert torch.equal(z, gates)
    assert torch.equal(before, cell)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("which", FUNCTIONS)
def test_dz_may_take_the_place_of_the_gates(which, dtype):
    gates, *units = (draw(4, size, seed=seed, dtype=dtype) for seed, size in enumerate((20, 5, 5, 5, 5, 5)))
    *read, before, dcell = units
    results = []
    for dz in (torch.empty_like(gates), gates):
        moved = dcell.clone()
        FUNCTIONS[which][1](*read, gates, before, moved, dz)
        results.append((dz, moved))
    assert all(map(torch.equal, *results))


def test_gates_beside_z_in_one_tensor():
    whole, before = (draw(4, size, seed=size, dtype=torch.float32) for size in (40, 5))
    z, cell = whole[:, :20].clone(), torch.empty_like(before)
    OPERATORS.lstm_cell(whole[:, :20], before, whole[:, 20:], cell)
    expected = torch.empty_like(z), torch.empty_like(before)
    OPERATORS.lstm_cell(z, before, *expected)
    assert torch.equal(whole[:, 20:], expected[0])
    assert torch.equal(cell, expected[1])


@pytest.fixture
def threads():
    """Sets the number of threads, which the test's end puts back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_bits_are_the_same_with_two_threads(threads):
    z, before = (draw(128, size, seed=size, dtype=torch.float32) for size in (400, 100))
    results = []
    for count in (1, 2):
        threads(count)
        gates, cell, dz = torch.empty_like(z), torch.empty_like(before), torch.empty_like(z)
        OPERATORS.lstm_cell(z, before, gates, cell)
        dcell = before.clone()
        OPERATORS.lstm_cell_backward(cell, before, cell, gates, before, dcell, dz)
        results.append((gates, cell, dcell, dz))
    assert all(map(torch.equal, *results))
