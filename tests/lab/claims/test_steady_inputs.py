"""Claim 10: both measures on networks whose answer is known, and the claim from end to end, small."""

from __future__ import annotations

import copy
import math
import sys
from collections import OrderedDict

import pytest
import torch
from torch import nn

from normwright.lab.book.bench import make
from normwright.lab.book.claim import all_claims
from normwright.lab.book.run import run_claims
from normwright.lab.claims.steady_inputs import geometric, gradient_change, move, percentiles


def network_of(norm):
    block = nn.Sequential(OrderedDict(linear=nn.Linear(2, 2, bias=False), norm=norm, activation=nn.Sigmoid()))
    nn.init.eye_(block.linear.weight)
    return nn.Sequential(OrderedDict(hidden1=block, output=nn.Linear(2, 2)))


def test_percentiles_are_of_the_activations_inputs_unit_by_unit():
    ramp = torch.arange(101.0)
    found = percentiles(network_of(nn.Identity()), torch.stack((ramp, -2 * ramp), dim=1))
    torch.testing.assert_close(found, torch.tensor([[15.0, -170.0], [50.0, -100.0], [85.0, -30.0]]))


def test_percentiles_are_taken_in_training_mode_after_the_normaliser():
    ramp = torch.arange(101.0)
    network = network_of(nn.BatchNorm1d(2, eps=1e-12)).eval()
    found = percentiles(network, torch.stack((ramp, ramp), dim=1))
    expected = torch.tensor([-35.0, 0.0, 35.0]) / ramp.std(correction=0)
    torch.testing.assert_close(found, expected.unsqueeze(1).expand(3, 2))


def test_a_move_is_counted_in_spreads_and_of_the_median_unit():
    before = torch.tensor([[-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    shifted = before + torch.tensor([0.2, 1.0, 50.0])
    assert move(before, shifted) == pytest.approx(0.5)
    assert move(before, before) == 0.0
    assert move(before[:, :1], 3 * before[:, :1]) == pytest.approx((2 + 0 + 2) / 3 / 4)


def test_moves_do_not_depend_on_the_units_scale():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(3, 5, generator=generator).sort(0).values for _ in range(2))
    assert move(10 * before, 10 * after) == pytest.approx(move(before, after))


def test_a_gradients_change_is_as_the_definition_says():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y, lr = torch.randn(8, 3), torch.tensor([0, 1] * 4), 0.5
    loss = nn.functional.cross_entropy
    before, mixed = copy.deepcopy(network), copy.deepcopy(network)
    loss(before(x), y).backward()
    with torch.no_grad():
        for parameter, old in zip(mixed[0].parameters(), before[0].parameters(), strict=True):
            parameter -= lr * old.grad
    loss(mixed(x), y).backward()
    g, moved = (torch.cat([p.grad.flatten() for p in each[2].parameters()]) for each in (before, mixed))
    expected = float((moved - g).norm() / g.norm())
    assert gradient_change(copy.deepcopy(network), x, y, lr) == pytest.approx(expected, rel=1e-5)
    assert math.isnan(gradient_change(network, x, y, 0.0))


def test_the_geometric_mean_is_of_what_is_above_zero():
    assert geometric([1.0, 4.0]) == pytest.approx(2.0)
    assert math.isnan(geometric([1.0, 0.0]))
    assert math.isnan(geometric([]))


@pytest.fixture
def module():
    """The claim's module as the book has it: other tests may have read the claims anew."""
    return sys.modules[all_claims()[10].experiment.__module__]


def test_the_claim_runs_to_its_end(tmp_path, monkeypatch, module):
    monkeypatch.setattr(
        module,
        "_recipe",
        lambda bench, norm: make("mlp", "digits", norm=norm, batch_size=50, depth=2, width=8, max_steps=20),
    )
    monkeypatch.setattr(module, "RATES", (0.1, 0.5))
    monkeypatch.setattr(module, "LOOK_EVERY", 5)
    monkeypatch.setattr(module, "GRADIENT_EVERY", 10)
    (record,) = run_claims([10], seeds=1, jobs=1, out=tmp_path)
    assert record.verdict == "no verdict"
    assert all(outcome.effect.mean > 0 for outcome in record.outcomes)
    assert record.cost.runs == 4
    moves, changes = (line for line in record.lines if line.name.endswith(", batch norm"))
    assert moves.x == (10.0, 15.0, 20.0)
    assert changes.x == (10.0, 20.0)


def test_a_run_that_diverges_has_no_measure(tmp_path, monkeypatch, module):
    def recipe(bench, norm):
        return make(
            "mlp", "digits", norm=norm, batch_size=50, depth=2, width=8, activation="relu", max_steps=20
        )

    monkeypatch.setattr(module, "_recipe", recipe)
    monkeypatch.setattr(module, "RATES", (1e30,))
    monkeypatch.setattr(module, "LOOK_EVERY", 5)
    (record,) = run_claims([10], seeds=1, jobs=1, out=tmp_path)
    assert all(outcome.values == (None,) for outcome in record.outcomes)
