"""The doctor on a network that lies on the device: what it finds is what it finds on the CPU."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import normwright as nw
from normwright.doctor.diagnose import examine
from normwright.doctor.rule import all_rules

# its examples take several processes
RULES = {name: rule for name, rule in all_rules().items() if name != "ranks_disagree"}


def on(device, subject):
    """The subject with its network there; the batches stay on the CPU, as a loader gives them."""
    return dataclasses.replace(subject, network=subject.network.to(device))


@pytest.mark.parametrize("name", RULES)
def test_each_rule_finds_its_defect_and_nothing_in_a_healthy_network(name, device):
    torch.manual_seed(0)
    found = examine(on(device, RULES[name].sick()), [RULES[name]])
    assert found.findings, found.outcomes
    found = examine(on(device, RULES[name].healthy()), [RULES[name]])
    assert [outcome.outcome for outcome in found.outcomes] == ["pass"], found.outcomes + found.findings


def network_and_batches(device):
    torch.manual_seed(0)
    stem = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1)]
    network = nn.Sequential(*stem, nn.Flatten(), nn.Linear(144, 3)).to(device)
    batches = [(torch.randn(8, 1, 8, 8), torch.randint(3, (8,))) for _ in range(4)]
    return network, batches


def test_all_rules_at_once_change_nothing(device):
    network, batches = network_and_batches(device)
    optimiser = torch.optim.SGD(network.parameters(), 0.1, weight_decay=1e-2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    draws = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if device.type == "cuda" else [])]
    diagnosis = nw.diagnose(network, batches, nn.functional.cross_entropy, optimiser=optimiser)
    assert {"bias_before_norm", "weight_decay_on_norm"} <= {finding.rule for finding in diagnosis.findings}
    assert not [outcome for outcome in diagnosis.outcomes if "Error" in outcome.because]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    now = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if device.type == "cuda" else [])]
    assert all(map(torch.equal, draws, now))


def train(network, batches, optimiser, steps=9):
    torch.manual_seed(1)
    for number in range(steps):
        x, target = (part.to(next(network.parameters()).device) for part in batches[number % len(batches)])
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), target).backward()
        optimiser.step()


def test_a_monitor_leaves_the_training_as_it_is(device):
    states = []
    for watched in (False, True):
        network, batches = network_and_batches(device)
        optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
        monitor = nw.Monitor(network, optimiser, every=4, steps=2) if watched else None
        train(network, batches, optimiser)
        states.append(network.state_dict())
    assert len(monitor.windows) == 2
    monitor.close()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_monitor_finds_what_goes_wrong(device):
    found = []
    with torch.random.fork_rng():
        network, batches = network_and_batches(device)
    optimiser = torch.optim.SGD(network.parameters(), 0.05)
    with torch.no_grad():
        network[0].bias[2], network[1].weight[2], network[1].bias[2] = (
            0.0,
            0.0,
            -1.0,
        )  # a channel that is dead
    with nw.Monitor(network, optimiser, every=4, steps=4, on_finding=found.append):
        train(network, batches, optimiser, steps=4)
    assert "dead_channels" in {finding.rule for finding in found}
