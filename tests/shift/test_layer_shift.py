"""How far the inputs of normalisers moved, against moments taken from the whole input at once."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom
from torch import nn

from normwright.shift.layer_inputs import LayerInputs
from normwright.shift.layer_shift import layer_shifts


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shifts(network, first, second, *, batch=16, level=0.05):
    fewer = min(len(first), len(second))
    size = -(-fewer // 100)
    with torch.no_grad(), LayerInputs(network.eval(), fewer // size, size) as inputs:
        for inputs.which, x in enumerate((first, second)):
            inputs.begin = 0
            for part in x.split(batch):
                inputs.samples = len(part)
                network(part)
                inputs.begin += len(part)
    return layer_shifts(inputs.layers, level=level, seed=0)


def wanted(first, second, eps, channel=1):
    """Mean shift and divergence of each channel, in float64, from everything at once."""
    x, y = (t.double().movedim(channel, 0).flatten(1) for t in (first, second))
    before, after = x.var(1, correction=0) + eps, y.var(1, correction=0) + eps
    shift = (y.mean(1) - x.mean(1)).abs() / before.sqrt()
    ratio = after / before
    return shift, (ratio + shift**2 - 1 - ratio.log()) / 2


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize(
    ("norm", "shape", "channel"),
    [
        (nn.BatchNorm1d(5), (5,), 1),
        (nn.BatchNorm2d(5), (5, 4, 3), 1),
        (nn.GroupNorm(1, 5), (5, 4), 1),
        (nn.LayerNorm(5), (7, 5), 2),
        (nn.LayerNorm((5, 4)), (5, 4), 1),
    ],
)
def test_figures(norm, shape, channel, offset):
    # Rounded to eighths, so that adding 10⁶ is exact in float32 and changes no shift.
    first, second = ((draw(n, *shape, seed=seed) * 8).round() / 8 for n, seed in ((50, 0), (37, 1)))
    second = 2 * second + 0.5
    found = shifts(norm, first + offset, second + offset)[0]
    shift, divergence = wanted(first, second, norm.eps, channel)
    # Moments of float32 values about a centre that is itself within a float32's rounding of the mean: the
    # centre cancels, so some roundings of 6e-8 of values of a few deviations.
    assert found.mean_shift == pytest.approx(float(shift.mean()), rel=1e-5)
    assert found.largest_mean_shift == pytest.approx(float(shift.max()), rel=1e-5)
    assert found.divergence == pytest.approx(float(divergence.mean()), rel=1e-5)
    assert found.largest_divergence == pytest.approx(float(divergence.max()), rel=1e-5)


def two_norms():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    nn.init.eye_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    return network


def test_the_first_layer_that_moved_is_the_first_called():
    network = two_norms()
    moved = shifts(network, draw(200, 3), draw(200, 3, seed=1) + torch.tensor([1.0, 0.0, 0.0]))
    assert [(layer.name, layer.moved) for layer in moved] == [("0", True), ("2", True)]

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.last(self.first(x))

    assert [layer.name for layer in shifts(Backwards(), draw(40, 3), draw(40, 3))] == ["first", "last"]


def test_a_change_of_variance_alone_is_a_move():
    found = shifts(nn.BatchNorm1d(3), draw(200, 3), draw(200, 3, seed=1) * torch.tensor([2.0, 1.0, 1.0]))[0]
    assert found.moved
    assert found.largest_divergence > 0.3  # (4 − 1 − ln 4)/2 = 0.81


@pytest.mark.parametrize("sizes", [(60, 60), (60, 150)])
def test_layers_move_by_chance_at_the_level(sizes):
    """Elements of a sample hang together here: taken for independent, they would raise alarms throughout."""
    alarms = 0
    for seed in range(100):
        parts = [
            draw(n, 3, 1, seed=2 * seed + which) + 0.1 * draw(n, 3, 50, seed=1000 + 2 * seed + which)
            for which, n in enumerate(sizes)
        ]
        alarms += any(layer.moved for layer in shifts(nn.BatchNorm1d(3), *parts))
    assert alarms <= binom.ppf(0.999, 100, 0.05)


def test_windows_of_a_sample_are_elements_of_it():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(3)

        def forward(self, x):
            return self.norm(x.reshape(-1, 2, 3))

    first, second = draw(40, 8, 3), draw(40, 8, 3, seed=1) + 1
    assert shifts(Windows(), first, second)[0].mean_shift == pytest.approx(
        float(wanted(first, second, 1e-5, 2)[0].mean()), rel=1e-5
    )


def test_reasons_for_no_figures():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.sequence_first = nn.BatchNorm1d(3), nn.LayerNorm(3)

        def forward(self, x):
            return self.sequence_first(x.transpose(0, 1))

    found = {layer.name: layer.reason for layer in shifts(Odd(), draw(40, 7, 3), draw(40, 7, 3))}
    assert found["unused"] == "not called as a module"
    assert "is not that of the 16 samples" in found["sequence_first"]


def test_nan_stays_in_its_layer():
    network = nn.ModuleDict({"a": nn.BatchNorm1d(3), "b": nn.BatchNorm1d(3)})
    network.forward = lambda x: (network["a"](x), network["b"](x.nan_to_num()))
    second = draw(40, 3, seed=1)
    second[7, 1] = torch.nan
    found = {layer.name: layer for layer in shifts(network, draw(40, 3), second)}
    assert found["a"].reason == "its input holds NaN or infinity in the current set"
    assert not found["b"].reason


def test_a_constant_that_does_not_move_has_no_shift():
    three, four = torch.full((40, 2), 3.0), torch.full((40, 2), 4.0)
    layer = nn.BatchNorm1d(2)
    still, moved = shifts(layer, three, three)[0], shifts(layer, three, four)[0]
    assert (still.mean_shift, still.divergence, still.p_value, still.moved) == (0.0, 0.0, 1.0, False)
    assert moved.moved
    assert moved.mean_shift == pytest.approx(layer.eps**-0.5, rel=1e-6)
