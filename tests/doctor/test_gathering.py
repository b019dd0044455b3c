"""The evidence is gathered as it is read: no look is taken that no rule asks for, nor twice, nor later."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from normwright.doctor.diagnose import examine
from normwright.doctor.evidence import Evidence
from normwright.doctor.gathering import gather, gather_when_read
from normwright.doctor.in_short import in_short
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import all_rules
from normwright.doctor.subject import Subject

STAGES = [
    "running a copy in training and inference mode",
    "tracing the graph",
    "training a copy, and looking on",
    "updating the layers below each layer",
]
NOT_READ = {"missing": "no rule that was asked reads it"}

#: Of every look, and of those that need another first.
PARTS = ("kernels", "dropout_shifts", "activations", "covariate_shift", "running", "company", "counts")


def subject() -> Subject:
    """A network that draws random numbers, from the same state each time."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
    )
    batches = tuple((torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(3))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=1e-4)
    return Subject(network, batches, nn.functional.cross_entropy, optimiser)


@pytest.fixture(scope="module")
def whole() -> dict[str, object]:
    """All of it, in short."""
    return in_short(gather(subject()))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_is_what_it_is_among_all(part, whole):
    evidence = gather_when_read(subject())
    getattr(evidence, part)
    assert in_short(evidence.as_read())[part] == whole[part] != ()


def test_a_rule_is_given_what_it_reads_and_no_more():
    stages: list[str] = []
    found = examine(subject(), [all_rules()["weight_decay_on_norm"]], stages.append)
    assert found.findings
    assert stages == []
    parts = in_short(found.evidence)
    assert parts["moments"] == parts["graph"] == parts["gradients"] == NOT_READ
    assert len(parts["parameters"]) == 8


def test_a_network_that_cannot_run_is_judged_by_its_optimiser():
    sick = subject()
    sick.network.append(nn.Linear(3, 3))
    assert examine(sick, [all_rules()["weight_decay_on_norm"]]).findings
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        examine(sick, [all_rules()["momentum_extreme"]])


def test_each_look_is_taken_once_and_only_where_it_is_needed():
    stages: list[str] = []
    evidence = gather_when_read(subject(), stages.append)
    for _ in range(2):
        assert evidence.running
        assert evidence.counts
        assert evidence.moments
    assert stages == [STAGES[0], STAGES[2]]


def test_all_rules_are_given_everything():
    stages: list[str] = []
    evidence = examine(subject(), all_rules().values(), stages.append).evidence
    assert stages == STAGES
    assert NOT_READ not in in_short(evidence).values()


def test_what_was_not_read_is_not_gathered_afterwards():
    sick = subject()
    stages: list[str] = []
    evidence = examine(sick, [all_rules()["eps_dominates"]], stages.append).evidence
    assert evidence.moments
    with pytest.raises(SkipError, match="no rule that was asked reads it"):
        _ = evidence.gradients
    assert stages == STAGES[:1]


def test_reading_draws_no_random_number():
    evidence = gather_when_read(subject())
    before = torch.get_rng_state()
    for part in dataclasses.fields(Evidence):
        try:
            getattr(evidence, part.name)
        except SkipError:
            continue
        assert torch.equal(torch.get_rng_state(), before)
