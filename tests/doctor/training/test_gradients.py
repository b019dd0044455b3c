"""Gradients, weights and updates: against what a plain training loop has."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from normwright.doctor.subject import Subject
from normwright.doctor.training.gradients import GradientObserver, layers_in, norms_of
from normwright.doctor.training.trial import train

# Norms are sums of squares in float32, of at most 64 elements here; and a root.
REL = 64 * 2.0**-23


def network_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def batches_of(count):
    return tuple((torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(count))


def observed(network, batches, optimiser=None, **options):
    observer = GradientObserver(options.get("accumulation", 1))
    train(Subject(network, batches, nn.functional.cross_entropy, optimiser, **options), [observer])
    return {facts.parameter: facts for facts in observer.facts(network)}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_as_in_a_plain_training_loop(accumulation):
    network, twin, batches = network_of(), network_of(), batches_of(4)
    found = observed(
        network,
        batches,
        torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9),
        accumulation=accumulation,
    )
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    expected = {name: [] for name, _ in twin.named_parameters()}
    for start in range(0, 4, accumulation):
        for x, y in batches[start : start + accumulation]:
            (nn.functional.cross_entropy(twin(x), y) / accumulation).backward()
        before = {name: p.detach().clone() for name, p in twin.named_parameters()}
        gradients = {name: p.grad.clone() for name, p in twin.named_parameters()}
        optimiser.step()
        optimiser.zero_grad()
        for name, p in twin.named_parameters():
            moved = (p.detach() - before[name]).norm()
            expected[name].append((float(gradients[name].norm()), float(before[name].norm()), float(moved)))
    for (name, p), (name_of_twin, other) in zip(
        network.named_parameters(), twin.named_parameters(), strict=True
    ):
        assert name == name_of_twin
        assert torch.equal(p, other), "observing changes nothing"
        norms, weights, updates = zip(*expected[name], strict=True)
        facts = found[name]
        assert facts.steps == tuple(range(accumulation - 1, 4, accumulation))
        assert facts.norms == pytest.approx(norms, rel=REL)
        assert facts.weights == pytest.approx(weights, rel=REL)
        assert facts.updates == pytest.approx(updates, rel=REL)
        assert facts.rms == pytest.approx([norm / math.sqrt(p.numel()) for norm in norms], rel=REL)
        assert facts.ratios == pytest.approx(
            [u / w if w else math.inf for u, w in zip(updates, weights, strict=True)], rel=2 * REL
        )
    assert [found[name].of_normaliser for name in ("0.weight", "1.weight", "1.bias")] == [False, True, True]


def test_without_an_optimiser_nothing_moves():
    found = observed(network_of(), batches_of(2))
    assert all(facts.updates == () and len(facts.norms) == 2 for facts in found.values())


def test_a_layers_are_those_of_its_parameters_in_the_order_of_the_forward():
    network = network_of()
    found = observed(network, batches_of(2), torch.optim.SGD(network.parameters(), lr=0.1))
    layers = layers_in(found.values(), ["3", "1", "0"])
    assert [facts.layer for facts in layers] == ["3", "1", "0"]
    weight, bias, layer = found["0.weight"], found["0.bias"], layers[2]
    for step in range(2):
        assert layer.norms[step] == pytest.approx(math.hypot(weight.norms[step], bias.norms[step]))
        assert layer.rms[step] == pytest.approx(layer.norms[step] / math.sqrt(4 * 6 + 6))
        assert layer.ratios[step] == pytest.approx(
            math.hypot(weight.updates[step], bias.updates[step])
            / math.hypot(weight.weights[step], bias.weights[step])
        )


def test_what_gets_no_gradient_is_left_out():
    network = network_of()
    network[0].weight.requires_grad_(False)
    assert list(observed(network, batches_of(1))) == ["0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]


def test_a_shared_parameter_counts_once():
    network = network_of()
    network.append(nn.Linear(2, 2))
    network.append(nn.Linear(2, 2))
    network[5].weight = network[4].weight
    assert [name for name in observed(network, batches_of(1)) if name.startswith(("4", "5"))] == [
        "4.weight", "4.bias", "5.bias",
    ]  # fmt: skip


def test_a_sparse_gradient_counts_each_row_once():
    network = nn.Sequential(nn.Embedding(10, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
    x = torch.tensor([[1, 1], [1, 2]])
    found = observed(network, ((x, torch.tensor([0, 1])),))
    network[0].sparse = False
    network.zero_grad()
    nn.functional.cross_entropy(network(x), torch.tensor([0, 1])).backward()
    assert found["0.weight"].norms == pytest.approx([float(network[0].weight.grad.norm())], rel=REL)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_norms_of_any_size(scale):
    assert norms_of([torch.tensor([3.0, 4.0]) * scale]) == pytest.approx([5 * scale], rel=2.0**-22)
    assert norms_of([]) == []
    assert norms_of([torch.zeros(3)]) == [0.0]


def test_elements_that_are_not_finite_are_counted():
    network = network_of()
    with torch.no_grad():
        network[3].weight[0] = math.inf
    found = observed(network, batches_of(2))
    assert found["3.weight"].nonfinite[0] > 0
    assert not math.isfinite(found["3.weight"].norms[0])
