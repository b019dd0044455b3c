"""Every way of cutting a tensor into tiles gives the right answer, also what only large tensors take."""

import math

import pytest
import torch
from cases import Call, case_of
from tolerances import assert_within

from normwright.backends.triton import rows
from normwright.backends.triton.settings import LONGEST_ROW, Tile, rows_tile
from normwright.functional import layer_norm

TILES = {
    "one row to a tile": Tile(1, 256, 1),
    "four rows to a tile": Tile(4, 256, 1),
    "fewer programs than rows": Tile(1, 256, 1, programs=1),
    "pieces": Tile(1, 16, 1),
    "pieces, fewer programs than rows": Tile(1, 16, 1, programs=1),
}
OPTIONS = (
    {"activation": "silu", "residual": "laid out alike"},
    {"activation": "relu", "residual": "contiguous"},
    {"activation": None, "affine": "weight"},
)


def assert_right(call):
    leaves = {
        n: t.requires_grad_()
        for n in ("x", "residual", "weight", "bias")
        if (t := getattr(call, n)) is not None
    }
    y = call.run(call.x, call.residual, call.weight, call.bias)
    dy = call.dy.masked_fill(torch.tensor(call.analysis.kink()), 0)
    given = dy.double().numpy()
    expected, bounds = call.expected(given), call.analysis.gradients(given, call.parameter_dtype)
    assert_within(y, expected.y, bounds.y, "y")
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    for name, gradient in zip(leaves, gradients, strict=True):
        assert_within(gradient, getattr(expected, f"d{name}"), getattr(bounds, f"d{name}"), f"d{name}")


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: str(options["activation"]))
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "transposed"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_rows(kind, layout, options, tile, monkeypatch):
    if kind == "rms":
        options = {**options, "affine": "weight"}
    taken = []
    monkeypatch.setattr(rows, "rows_tile", lambda *_, **__: taken.append(tile) or TILES[tile])
    assert_right(Call(case_of(kind, (2, 6, 5, 7), layout=layout, **options)))
    assert len(taken) == 2


@pytest.mark.parametrize("backward", [False, True])
def test_a_row_is_cut_in_no_more_pieces_than_a_grid_has_programs(backward):
    """Along its second axis."""
    for length in (LONGEST_ROW + 1, 65535 * 4096, 65535 * 4096 + 1, 2**31 + 1):
        assert math.ceil(length / rows_tile(length, backward=backward).block) <= 65535


@pytest.mark.parametrize("shape", [(64, 16), (3, 200)], ids=str)
def test_out_may_overlap_the_input(shape, monkeypatch):
    """The rows that one program has read are not those that another has yet to read."""
    monkeypatch.setattr(rows, "rows_tile", lambda *_, **__: Tile(1, 64, 1))
    memory = torch.randn(math.prod(shape) + 5, generator=torch.Generator().manual_seed(0))
    x, out = (memory[start : start + math.prod(shape)].view(shape) for start in (0, 5))
    expected = layer_norm(x.clone(), shape[1:])
    assert torch.equal(layer_norm(x, shape[1:], out=out), expected)
