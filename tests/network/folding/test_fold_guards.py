"""Folding networks that do more than their trace shows: nothing may change without being seen."""

from __future__ import annotations

import copy

import pytest
import torch
from same import randomise
from torch import nn

from normwright.network import fold_with_report
from normwright.network.folding import fold as fold_module

# float64 throughout: a fold that is exact differs by roundings of 2^-53 in a few hundred operations.
EXACT = 1e-12


@pytest.fixture(autouse=True)
def _no_long_timing(monkeypatch):
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)


def draw(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    """Modules by name, and a forward."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.way = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args):
        return self.way(self, *args)


class Clamped(nn.BatchNorm2d):
    """A batch norm that overwrites something by the way."""

    way = ""

    def forward(self, x):
        if float(self.eps) < 0:  # read from the module, so that torch.fx traces it too
            return x
        if self.way == "input":
            x.clamp_(max=0.1)
        if self.way == "statistics":
            self.running_mean.mul_(0.5)
        y = super().forward(x)
        if self.way == "result":
            y.clamp_(max=0.1)
        if self.way == "list":
            torch._foreach_clamp_max_([y], 0.1)
        return y


def recorded_only(monkeypatch):
    """Makes torch.export fail, so that a call is recorded."""

    def fails(*_, **__):
        raise RuntimeError("no export")

    monkeypatch.setattr(torch.export, "export", fails)


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("way", ["input", "result", "list", "statistics"])
def test_a_norm_that_overwrites_is_no_map(way, exported, monkeypatch):
    if not exported:
        recorded_only(monkeypatch)
    norm = Clamped(4)
    norm.way = way
    network = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 2, 1))
    randomise(network).eval()
    x = draw(2, 3, 4, 4, scale=5.0)
    before = copy.deepcopy(network)
    result, report = fold_with_report(network, x)
    assert all(record.place in ("", "before") for record in report.normalisers)
    assert isinstance(result[1], Clamped)
    with torch.no_grad():
        for _ in range(2):
            expected = before(x)
            assert float((result(x) - expected).abs().max()) <= EXACT * float(expected.abs().max())


def _in_no_grad(self, x):
    x = torch.relu(x)
    z = self.bn(x)
    with torch.no_grad():
        x.clamp_(max=0.1)
    return self.conv(z), x


def _in_a_list(self, x):
    x = torch.relu(x)
    z = self.bn(x)
    torch._foreach_clamp_max_([x], 0.1)
    return self.conv(z), x


def _by_out(self, x):
    x = torch.relu(x)
    z = self.bn(x)
    torch.clamp(z, max=0.1, out=x)
    return self.conv(z), x


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("forward", [_in_no_grad, _in_a_list, _by_out])
def test_an_overwritten_input_is_seen(forward, exported, monkeypatch):
    # the multiply-add keeps its own result; a fold into the convolution would read what was overwritten
    if not exported:
        recorded_only(monkeypatch)
    network = Net(forward, bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 1))
    randomise(network).eval()
    x = draw(2, 3, 4, 4, scale=5.0)
    result, report = fold_with_report(network, 1e-3 * x.abs())
    assert report.normalisers[0].place == "multiply-add"
    with torch.no_grad():
        for expected, actual in zip(network(x), result(x), strict=True):
            assert float((actual - expected).abs().max()) <= EXACT * float(expected.abs().max())
