"""Claim 22: changed answers, the ratio of errors, and the network as most code has it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from normwright.lab.book.bench import make
from normwright.lab.claims.exact_folding import changed, error_ratio, with_torch_norms
from normwright.lab.data import load
from normwright.lab.training import build
from normwright.network import FoldDifference, FoldReport


def test_changed_is_the_per_cent_of_samples_with_another_class():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.4, 0.6], [0.9, 0.1]])
    tilted = nn.Linear(2, 2)
    with torch.no_grad():
        tilted.weight.copy_(torch.eye(2))
        tilted.bias.copy_(torch.tensor([0.3, 0.0]))
    assert changed(nn.Identity(), tilted, x) == 25.0
    assert changed(nn.Identity(), nn.Identity(), x) == 0.0


def report_of(**errors):
    error = FoldDifference(1e-6, tolerance=1e-5, examples=1, difference_ulps=1.0, **errors)
    return FoldReport("torch.export", (), error, None, ())


def test_the_ratio_of_errors():
    report = report_of(folded=3e-7, unfolded=2e-7, folded_ulps=3.0, unfolded_ulps=2.0)
    assert error_ratio(report) == pytest.approx(1.5)
    unknown = report_of(folded=None, unfolded=None, folded_ulps=None, unfolded_ulps=None)
    assert math.isnan(error_ratio(unknown))
    assert math.isnan(error_ratio(FoldReport("", (), None, None, ())))


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_as_most_code_has_it_every_norm_is_pytorchs_and_the_answers_are_the_same(name):
    recipe = make(name, "digits", norm="batch", batch_size=50, activation="relu", depth=2, width=8)
    data = load(recipe.data)
    network = build(recipe, data).module
    with torch.no_grad():
        network(data.train_x[:200])  # moves the running statistics away from their start
    network.eval()
    plain = with_torch_norms(network)
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms
    assert all(type(norm).__module__ == "torch.nn.modules.batchnorm" for norm in norms)
    assert not any(norm.training for norm in norms)
    assert not any(module in norms for module in network.modules())
    x = data.test_x[:20]
    torch.testing.assert_close(plain(x), network(x))
