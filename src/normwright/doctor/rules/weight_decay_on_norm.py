"""Weight decay pulls a normaliser's weight and bias towards 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose weight or bias decays."""
    evidence.need_optimiser()
    layers: dict[str, dict[float, list[str]]] = {}
    for parameter in evidence.parameters:
        if parameter.of_normaliser and parameter.trained and parameter.weight_decay:
            decays = layers.setdefault(parameter.layer, {})
            decays.setdefault(parameter.weight_decay, []).append(parameter.name.rpartition(".")[2])
    for layer, decays in layers.items():
        yield Fault(layer, _in_words(decays), max(decays), "norm_weight_decay")


def _in_words(decays: dict[float, list[str]]) -> str:
    return ", ".join(
        f"{' and '.join(names)} {'decay' if len(names) > 1 else 'decays'} by {decay:g}"
        for decay, names in decays.items()
    )


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Moves a normaliser's parameters into a group of their own, without decay."""
    optimiser = subject.optimiser
    assert optimiser is not None
    moved = {id(p): p for p in subject.network.get_submodule(finding.layer).parameters(recurse=False)}
    for group in list(optimiser.param_groups):
        taken = [parameter for parameter in group["params"] if id(parameter) in moved]
        if not taken or not group.get("weight_decay"):
            continue
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in moved]
        # its state is kept by parameter, and stays
        optimiser.add_param_group({**group, "params": taken, "weight_decay": 0.0})
    return subject.network, optimiser


def healthy() -> Subject:
    """Decay on the linear layer alone."""
    network = _network()
    decaying, kept = network[0].parameters(), network[1].parameters()
    groups: list[dict[str, Any]] = [{"params": decaying}, {"params": kept, "weight_decay": 0.0}]
    return _subject(network, torch.optim.SGD(groups, lr=0.1, weight_decay=1e-4))


def sick() -> Subject:
    """The same decay on everything."""
    network = _network()
    return _subject(network, torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=1e-4))


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU())


def _subject(network: nn.Module, optimiser: Optimizer) -> Subject:
    return Subject(network, ((torch.randn(8, 4), torch.zeros(8, dtype=torch.long)),), None, optimiser)


RULE = Rule(
    name="weight_decay_on_norm",
    what="A normaliser's weight and bias are in a parameter group with weight decay.",
    why="Decay of the weights before a normaliser changes their effective learning rate; decay of its own "
    "weight and bias shrinks what it hands on, without making the network simpler.",
    advice="Put normalisers' weight and bias into a parameter group with weight_decay=0.",
    references=("He et al. 2019, arXiv:1812.01187", "van Laarhoven 2017, arXiv:1706.05350"),
    severity="note",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
    static=True,
)
