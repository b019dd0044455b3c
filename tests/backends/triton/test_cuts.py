"""Every way of cutting a tensor into tiles gives the right answer, also what only large tensors take."""

import pytest
import torch
from cases import Call, case_of
from tolerances import assert_within

from normwright.backends.triton import rows
from normwright.backends.triton.settings import Tile

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
