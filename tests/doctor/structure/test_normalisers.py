"""The settings of normalisers: of modules of every kind, of functions' calls, and of what nothing calls."""

from __future__ import annotations

import pytest
import torch
from graphs import WAYS, Calls, graph_by, images
from torch import nn
from torch.nn import functional as F

import normwright as nw
from normwright.doctor.structure.normalisers import NormaliserFacts, Summary, normalisers_of


def _facts(network: nn.Module, x: torch.Tensor) -> NormaliserFacts:
    (facts,) = normalisers_of(network, graph_by("torch.export", network, x))
    return facts


@pytest.mark.parametrize(
    ("norm", "shape", "kind", "features", "elements"),
    [
        (nn.BatchNorm2d(4), (3, 4, 5, 6), "batch", 4, 3 * 5 * 6),
        (nn.SyncBatchNorm(4), (3, 4, 5), "synchronised", 4, None),
        (nw.nn.BatchRenorm1d(4), (3, 4, 5), "renormalised", 4, 3 * 5),
        (nw.nn.FrozenBatchNorm1d(4), (3, 4), "frozen", 4, 3),
        (nn.InstanceNorm2d(4), (3, 4, 5, 6), "instance", 4, 5 * 6),
        (nn.InstanceNorm1d(4), (4, 5), "instance", 4, 5),
        (nn.GroupNorm(2, 4), (3, 4, 5, 6), "group", 4, 2 * 5 * 6),
        (nn.LayerNorm((5, 6)), (3, 4, 5, 6), "layer", 30, 30),
        (nn.RMSNorm(6), (3, 4, 5, 6), "rms", 6, 6),
        (nn.LocalResponseNorm(3), (3, 4, 5, 6), "local_response", None, 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_kinds_and_elements(norm, shape, kind, features, elements):
    network = nn.Sequential(norm)
    graph = None if elements is None else graph_by("torch.export", network, torch.randn(shape))
    (facts,) = normalisers_of(network, graph)
    assert (facts.name, facts.kind, facts.features, facts.elements) == ("0", kind, features, elements)
    assert facts.over_batch == (kind in ("batch", "synchronised", "renormalised"))


def test_settings_of_a_module():
    norm = nn.BatchNorm1d(2, eps=0.01, momentum=0.3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 3.0]))
    norm.weight.requires_grad_(False)
    facts = _facts(nn.Sequential(norm, nn.Linear(2, 2)), torch.randn(4, 2))
    assert (facts.eps, facts.momentum, facts.affine, facts.tracks, facts.trained) == (
        0.01,
        0.3,
        True,
        True,
        False,
    )
    assert facts.weight == Summary(1.0, 2.0, 3.0)
    assert facts.bias == Summary(0.0, 0.0, 0.0)
    assert facts.calls == 1


def test_modes():
    held = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU())
    held[0].eval()
    assert not normalisers_of(held, None)[0].by_data  # held in inference mode in a network that trains
    assert not normalisers_of(held, None)[0].training
    assert normalisers_of(held.eval(), None)[0].by_data  # training would put it into training mode
    frozen = normalisers_of(nw.freeze(held), None)[0]
    assert (frozen.frozen, frozen.by_data, frozen.what, frozen.kind) == (True, False, "BatchNorm1d", "batch")


def test_a_class_of_its_own_is_told_by_its_name():
    class LlamaRMSNorm(nn.Module):  # as Transformers has it
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))
            self.variance_epsilon = 1e-6

        def forward(self, x):
            return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    facts = _facts(nn.Sequential(LlamaRMSNorm()), torch.randn(4, 8))
    assert (facts.kind, facts.known, facts.elements, facts.eps) == ("rms", False, 8, 1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_functions(way):
    def forward(m, x):
        x = F.batch_norm(x, m.norm.running_mean, m.norm.running_var, momentum=0.2, training=m.training)
        x = F.batch_norm(x, m.norm.running_mean, m.norm.running_var, training=False)
        x = nw.functional.layer_norm(x, (8, 8), eps=0.1)
        return nw.functional.rms_norm(nw.functional.group_norm(x, 2), (8,))

    network = Calls(forward, norm=nn.BatchNorm2d(4))
    module, *functions = normalisers_of(network, graph_by(way, network, images(4)))
    assert (module.name, module.calls, module.elements) == ("norm", 0, None)
    assert [facts.name for facts in functions] == [
        ": batch_norm",
        ": batch_norm#2",
        ": layer_norm",
        ": group_norm",
        ": layer_norm#2",
    ]
    assert [facts.kind for facts in functions] == ["batch", "batch", "layer", "group", "rms"]
    assert [facts.elements for facts in functions] == [4 * 64, 4 * 64, 64, 2 * 64, 8]
    assert [facts.over_batch for facts in functions] == [True, False, False, False, False]
    assert (functions[0].momentum, functions[2].eps) == (0.2, 0.1)
    assert all(facts.functional and facts.known for facts in functions)


def test_several_calls_count_with_the_fewest_elements():
    network = Calls(lambda m, x: m.norm(m.norm(x)[:, :, 1:]), norm=nn.BatchNorm2d(3))
    facts = _facts(network, images())
    assert (facts.calls, facts.elements) == (2, 4 * 7 * 8)
