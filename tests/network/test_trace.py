"""Tracing a whole network, and what is done where that cannot be."""

from __future__ import annotations

import pytest
import torch
from same import randomise
from torch import nn

import normwright as nw
from normwright.network import fold_with_report
from normwright.network.calling import call_of
from normwright.network.flow import calls_around, operator_of
from normwright.network.folding import fold as fold_module
from normwright.network.trace import trace

EXACT = 1e-12


@pytest.fixture(autouse=True)
def _no_long_timing(monkeypatch):
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class Straight(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.linear, self.second = nn.Linear(4, 5), nn.BatchNorm1d(5)

    def features(self, x):
        return self.norm(self.conv(x)).relu_()

    def forward(self, x):
        return self.second(self.linear(self.features(x).mean((2, 3))))


class Branching(Straight):
    """The way that a call takes depends on the numbers in it, which export and fx refuse."""

    def forward(self, x):
        y = self.features(x)
        if y.sum().item() > 1e9:
            y = self.conv(x)
        return self.second(self.linear(y.mean((2, 3))))


def folded(network, x):
    randomise(network).eval()
    result, report = fold_with_report(network, x)
    with torch.no_grad():
        expected, actual = network(x), result(x)
    assert float((expected - actual).abs().max()) <= EXACT * float(expected.abs().max())
    return report


def test_export_says_which_module_and_which_value():
    flow = trace(Straight().double().eval(), call_of(draw(2, 3, 5, 5)))
    assert flow.how == "torch.export"
    norm = next(node for node in flow.graph.nodes if operator_of(node) == "aten.batch_norm")
    assert calls_around(norm)[-1][1] == "norm"
    assert operator_of(norm.args[0]) == "aten.conv2d"
    assert [operator_of(reader) for reader in flow.readers(norm.args[0])] == ["aten.batch_norm"]
    assert flow.names[norm.args[1]] == "norm.weight"


@pytest.mark.parametrize(("kind", "how"), [(Straight, "torch.export"), (Branching, "recording")])
def test_the_report_says_what_traced(kind, how):
    report = folded(kind(), draw(2, 3, 5, 5))
    assert report.traced_by == how
    assert [record.place for record in report.normalisers] == ["before", "before"]
    assert any("taken to be so in others" in note for note in report.notes) == (how == "recording")


class DoublingInPlace(nn.Module):
    """Asks for a value, which no export can, and writes into its input."""

    def forward(self, x):
        return x.mul_(2) if float(x.sum()) < 1e9 else x


def test_a_recording_leaves_what_a_network_writes_into_as_it_was():
    x = draw(2, 3)
    assert trace(DoublingInPlace(), call_of(x)).how == "recording"
    assert torch.equal(x, draw(2, 3))


def test_torch_fx_vouches_for_a_recording(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no export today")

    monkeypatch.setattr(torch.export, "export", refuse)
    report = folded(Straight(), draw(2, 3, 5, 5))
    assert report.traced_by == "torch.fx"
    assert not [note for note in report.notes if "taken to be so in others" in note]
    assert [record.place for record in report.normalisers] == ["before", "before"]


def test_without_a_trace_each_norm_becomes_a_multiply_add(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no trace today")

    for name in ("_exported", "_straight", "_recorded"):
        monkeypatch.setattr(f"normwright.network.trace.{name}", refuse)
    report = folded(Straight(), draw(2, 3, 5, 5))
    assert report.traced_by == ""
    assert [record.place for record in report.normalisers] == ["multiply-add", "multiply-add"]
    assert "no trace today" in report.notes[0]


def test_whitening_is_read_by_eigenvalues_and_exported_without():
    """Newton's iteration is three hundred operators a layer, which none but another machine needs."""
    network = nn.Sequential(nn.Linear(4, 4), nw.nn.WhiteningNorm1d(4, group_size=2)).double().eval()

    def operators(graph):
        return [operator_of(node) for node in graph.nodes if node.op == "call_function"]

    read = operators(trace(network, call_of(draw(8, 4))).graph)
    assert "aten.linalg_eigh" in read
    assert len(read) < 100
    assert "aten.linalg_eigh" not in operators(torch.export.export(network, (draw(8, 4),)).graph)
