"""What the rules about statistics say beyond their own examples: severities, reasons and words."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

import normwright as nw
from normwright.doctor.diagnose import examine
from normwright.doctor.gathering import gather
from normwright.doctor.rule import all_rules
from normwright.doctor.rules import batch_of_one, last_batch_ragged, leak_across_batch, stale_statistics
from normwright.doctor.statistics.staleness import judged
from normwright.doctor.subject import Subject, subject_of
from normwright.errors import OptionError


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def found(rule, subject):
    return examine(subject, [all_rules()[rule]]).findings


def test_a_last_batch_of_one_is_an_error_though_it_was_not_read():
    subject = dataclasses.replace(last_batch_ragged.healthy(), sizes=(32,) * 9 + (1,))
    [finding] = found("last_batch_ragged", subject)
    assert finding.severity == "error"
    assert "the last batch has 1 of 32 samples, which gives '1' one value per channel" in finding.message


def test_an_empty_last_batch_is_no_last_batch():
    subject = last_batch_ragged.healthy()
    empty = torch.empty(0, 4)
    subject = dataclasses.replace(subject, batches=(*subject.batches, empty), sizes=(*subject.sizes, 0))
    assert not found("last_batch_ragged", subject)
    ragged = dataclasses.replace(subject, sizes=(32, 32, 2, 0))
    assert "the last batch has 2 of 32" in found("last_batch_ragged", ragged)[0].message


@pytest.mark.parametrize("last", [16, 31])
def test_a_last_batch_that_is_large_enough_passes(last):
    assert not found(
        "last_batch_ragged", dataclasses.replace(last_batch_ragged.healthy(), sizes=(32, 32, last))
    )


@pytest.mark.parametrize(("chosen", "sizes"), [(64, (32, 32)), (65, (32, 32, 1))])
def test_the_last_batch_is_of_the_samples_that_a_sampler_gives(chosen, sizes):
    data = TensorDataset(torch.randn(100, 4))
    loader = DataLoader(data, batch_size=32, sampler=SubsetRandomSampler(range(chosen)))
    assert subject_of(nn.Linear(4, 2), loader, most=1).sizes == sizes


def test_a_batch_of_one_names_layer_and_batch():
    subject = batch_of_one.healthy()
    subject = dataclasses.replace(subject, batches=(*subject.batches, torch.randn(1, 4)))
    [finding] = found("batch_of_one", subject)
    assert (finding.severity, finding.layer) == ("error", "1")
    assert finding.message.startswith(
        "batch 5: layer '1' (BatchNorm1d) is given one value per channel, (1, 8)"
    )


def test_one_sample_of_many_positions_is_a_warning():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    [finding] = found("batch_of_one", Subject(network, (torch.randn(1, 1, 9, 9),) * 2))
    assert finding.severity == "warning"
    assert "of 1 batch normaliser the moments are its alone" in finding.message


class StandardisedConv(nn.Conv2d):
    """As BiT and NFNets standardise a weight: by batch norm's function, in one sample's place."""

    def forward(self, x):
        weight = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True)
        return F.conv2d(x, weight.view_as(self.weight), self.bias)


@pytest.mark.parametrize("rule", ["batch_of_one", "batch_too_small"])
def test_a_weight_that_batch_norm_standardises_is_no_sample(rule):
    network = nn.Sequential(StandardisedConv(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU())
    assert not found(rule, Subject(network, tuple(torch.randn(8, 3, 6, 6) for _ in range(4))))


def test_frozen_statistics_of_other_data_are_a_note():
    subject = stale_statistics.sick()
    nw.freeze(subject.network, inplace=True)
    [finding] = found("stale_statistics", subject)
    assert finding.severity == "note"
    assert finding.message.endswith("they are frozen, and training goes by them too")


def test_statistics_left_out_of_a_checkpoint_are_a_warning():
    """Never counted, in a layer whose weight was trained."""
    subject = stale_statistics.healthy()
    norm = subject.network[1]
    norm.reset_running_stats()
    assert not found("stale_statistics", subject)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
    [finding] = found("stale_statistics", subject)
    assert finding.severity == "warning"
    assert finding.message.endswith("they are 0 and 1 as built, though its weight or bias is not")


def trained_with(momentum, count):
    """Batches, and what they trained: a network that tells the classes by a channel far from its start."""
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=momentum), nn.ReLU(), nn.Linear(8, 2))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    batches = []
    for _ in range(8):
        x = torch.randn(64, 4)
        batches.append((6 * x + 9, (x.sum(1) > 0).long()))
    for step in range(count):
        x, y = batches[step % 8]
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
    return Subject(network, tuple(batches), F.cross_entropy, optimiser)


@pytest.mark.parametrize("in_training", [0.0, -4.0])
def test_a_loss_that_is_not_above_0_is_held_against_its_size(in_training):
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    network[0].num_batches_tracked.fill_(1000)
    network[0].running_mean.fill_(9.0)
    nn.init.ones_(network[1].weight)
    batches = tuple((torch.randn(64, 4), torch.zeros(64)) for _ in range(4))

    def loss(outputs, _):  # without a share of the outputs where they are within 20
        return (outputs.abs() - 20).relu().mean() + in_training + 0 * outputs.sum()

    subject = Subject(network, batches, loss)
    modes = gather(subject).modes
    assert modes.loss_training == in_training
    [finding] = found("train_eval_gap", subject)
    rise = modes.loss_inference - in_training
    assert finding.value == (1 + rise / 4 if in_training else float("inf"))
    assert finding.value > finding.threshold


@pytest.mark.parametrize("rule", ["stale_statistics", "train_eval_gap"])
def test_a_momentum_too_small_for_the_training_is_a_warning(rule):
    [finding] = found(rule, trained_with(0.001, 160))
    assert finding.severity == "warning"
    assert "after 160 mini-batches 85% of the initial values is still in them" in finding.message
    assert "momentum is 0.001" in finding.message


@pytest.mark.parametrize(("tracked", "severity"), [(40, "note"), (44, "warning"), (99, "warning")])
def test_statistics_that_lag_by_a_small_momentum_are_a_warning_too(tracked, severity):
    """Beyond what is left of the initial values, they are as old as the training."""
    [facts] = gather(trained_with(0.01, 4)).running
    facts = dataclasses.replace(facts, tracked=tracked, momentum=0.01, gap=0.8, gap_beyond_start=0.7)
    found, reason = judged(facts, 0.5)
    assert found == severity
    assert ("momentum is 0.01" in reason) == (severity == "warning")


def test_pytorchs_momentum_is_not_blamed():
    """What is left of a variance of 1 may count for much, where the data's is tiny."""
    [facts] = gather(trained_with(0.1, 4)).running
    facts = dataclasses.replace(facts, tracked=60, remainder=0.9**60, gap=0.8, gap_beyond_start=0.1)
    assert judged(facts, 0.5) == (
        "note",
        "after 60 mini-batches 0.18% of the initial values is still in them",
    )


@pytest.mark.parametrize(("momentum", "count"), [(0.1, 4), (0.001, 4)])
def test_statistics_of_a_training_that_has_only_begun_are_a_note(momentum, count):
    [finding] = found("stale_statistics", trained_with(momentum, count))
    assert finding.severity == "note"
    assert "of the initial values is still in them" in finding.message


def test_batches_of_one_class_each_are_told_from_small_ones():
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).train()
    batches = [(torch.randn(32, 4) + 8 * (k % 2), torch.full((32,), k % 2)) for k in range(8)]
    for x, _ in batches * 10:
        network(x)
    [finding] = found("train_eval_gap", Subject(network, tuple(batches), F.cross_entropy))
    assert finding.severity == "warning"
    assert "batches are unlike: the means in '1' lie" in finding.message


class _CalledTwice(nn.Module):
    """One batch norm in two places, whose values lie far apart."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 2)

    def forward(self, x):
        return self.second(torch.relu(self.norm(10 * self.first(self.norm(x)) + 20)))


@pytest.mark.parametrize(
    ("trained", "severity", "reason"),
    [
        (False, "note", "'norm': the layer was never trained, and its running statistics are still as built"),
        (True, "warning", "most of all in 'norm', which is called 2 times in one forward: its running"),
    ],
)
def test_a_norm_in_two_places_does_not_make_shuffled_batches_unlike(trained, severity, reason):
    network = _CalledTwice().train()
    batches = tuple((torch.randn(32, 4), torch.randint(2, (32,))) for _ in range(8))
    for x, _ in batches * (10 * trained):
        network(x)
    [finding] = found("train_eval_gap", Subject(network, batches, F.cross_entropy))
    assert finding.severity == severity
    assert reason in finding.message
    assert "unlike" not in finding.message


def test_an_averaged_model_is_known_by_its_class():
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).train()
    batches = tuple(torch.randn(64, 4) for _ in range(8))
    for batch in batches * 8:
        network(batch)
    averaged = AveragedModel(network)
    with torch.no_grad():
        for parameter in network[0].parameters():
            parameter.mul_(3)
    averaged.update_parameters(network)
    [finding] = found("averaged_weights_stale", Subject(averaged, batches))
    assert (finding.severity, finding.layer) == ("warning", "module.1")
    assert finding.fix().mended
    assert not found("stale_statistics", Subject(averaged, batches))


def test_a_leak_that_is_no_batch_norms_is_not_mended_by_machine():
    class Mixed(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    subject = leak_across_batch.healthy()
    subject = dataclasses.replace(subject, network=nn.Sequential(subject.network, Mixed()))
    [finding] = found("leak_across_batch", subject)
    assert finding.layer == ""
    assert "no normaliser does it" in finding.message
    with pytest.raises(OptionError, match="must be fixed by hand"):
        finding.fix()


class _OverSteps(nn.Module):
    """Normalises all steps of all sequences together."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(x.flatten(0, 1)).view_as(x).mean(1)


@pytest.mark.parametrize(("steps", "severities"), [(3, ["warning"]), (30, [])])
def test_a_last_sequence_has_as_many_elements_as_steps(steps, severities):
    subject = Subject(_OverSteps(), (torch.randn(16, steps, 4),) * 2, sizes=(16, 16, 1))
    assert [finding.severity for finding in found("last_batch_ragged", subject)] == severities
