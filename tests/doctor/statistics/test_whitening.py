"""Whitening layers in the doctor: how far their statistics are from the data, by their covariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import normwright as nw
from normwright import reference
from normwright.doctor.diagnose import examine
from normwright.doctor.gathering import gather
from normwright.doctor.rule import all_rules
from normwright.doctor.statistics.drift import Drift
from normwright.doctor.statistics.sight import sight_of_module
from normwright.doctor.subject import Subject
from normwright.network import walk

METHODS = pytest.mark.parametrize("method", ["zca", "iterative"])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def mixed(*shape):
    """Channels each of which holds the one before."""
    return torch.randn(*shape).double().cumsum(1) + 2


def layer(method, kind=nw.nn.WhiteningNorm1d, **options):
    """One of 6 channels, with statistics of other data."""
    norm = kind(6, group_size=3, method=method, dtype=torch.float64, **options)
    norm.train()
    for _ in range(40):
        norm(3 * torch.randn(64, 6).double() + 1)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
    return norm


def found(rule, subject):
    return examine(subject, [all_rules()[rule]]).findings


def relative(apart, whole):
    return float(np.sqrt((apart**2).sum() / (whole**2).sum()))


@METHODS
def test_the_gap_between_the_modes_is_the_reference_s(method):
    norm, batches = layer(method), [mixed(32, 6) for _ in range(3)]
    [facts] = gather(Subject(nn.Sequential(norm), tuple(batches))).moments
    options = {"weight": norm.weight.detach().numpy(), "method": method}
    covariance = norm.running_covariance.numpy()
    by_batch = [reference.whitening_norm(x.numpy(), 3, **options).y for x in batches]
    by_running = [
        reference.whiten_by(x.numpy(), norm.running_mean.numpy(), covariance, **options) for x in batches
    ]
    apart = np.concatenate(by_running) - np.concatenate(by_batch)
    assert facts.gap == pytest.approx(relative(apart, np.concatenate(by_batch)), rel=1e-9)


def test_groups_of_one_have_the_gap_of_batch_norm():
    whitening, batch = nw.nn.WhiteningNorm1d(4, group_size=1).double(), nn.BatchNorm1d(4).double()
    batches = tuple(mixed(32, 4) for _ in range(3))
    for norm in (whitening, batch):
        norm(5 * torch.ones(8, 4).double() * torch.arange(8).double().view(-1, 1))
    facts, of_batch = (gather(Subject(nn.Sequential(norm), batches)) for norm in (whitening, batch))
    assert facts.moments[0].gap == pytest.approx(of_batch.moments[0].gap, rel=1e-9)
    for name in ("mean_shift", "variance_ratio", "remainder"):
        expected = getattr(of_batch.running[0], name)
        assert getattr(facts.running[0], name) == pytest.approx(expected, rel=1e-9)


@METHODS
def test_the_gap_to_the_population_is_the_reference_s(method):
    norm, x = layer(method), mixed(32, 6)
    # the same mini-batch again and again: the population is known without error
    [facts] = gather(Subject(nn.Sequential(norm), (x,) * 4)).running
    # training moves towards the unbiased covariance, which is that of elements so much farther apart
    elements = (x.mean(0) + (x - x.mean(0)) * (32 / 31) ** 0.5).numpy()
    whole = reference.whitening_norm(elements, 3, weight=norm.weight.detach().numpy(), method=method).y
    by_running = reference.whiten_by(
        elements,
        norm.running_mean.numpy(),
        norm.running_covariance.numpy(),
        weight=norm.weight.detach().numpy(),
        method=method,
    )
    assert facts.gap == pytest.approx(relative(by_running - whole, whole), rel=1e-9)
    assert not facts.frozen
    assert facts.tracked == 40


@METHODS
@pytest.mark.parametrize("shape", [(64, 6), (16, 6, 9)], ids=["positions", "space"])
def test_statistics_of_the_data_are_healthy_and_without_their_correlations_stale(method, shape):
    network = nn.Sequential(layer(method), nn.Flatten(), nn.LazyLinear(2, dtype=torch.float64))
    subject = Subject(network, tuple(mixed(*shape) for _ in range(8)))
    network(subject.batches[0])
    nw.recalibrate(network, subject.batches)
    assert not found("stale_statistics", subject)
    covariance = network[0].running_covariance
    covariance.copy_(torch.diag_embed(covariance.diagonal(dim1=1, dim2=2)))
    [finding] = found("stale_statistics", subject)
    assert (finding.severity, finding.layer) == ("warning", "0")
    assert finding.fix().mended
    network[0].running_mean.add_(20)
    [gap] = found("train_eval_gap", subject)
    assert "running statistics are not the data's, most of all in '0'" in gap.message


def test_what_few_mini_batches_leave_unknown_is_no_gap():
    network = nn.Sequential(nw.nn.WhiteningNorm1d(6, group_size=6, momentum=None, dtype=torch.float64))
    batches = tuple(mixed(24, 6) for _ in range(6))
    for batch in (mixed(24, 6) for _ in range(6)):
        network(batch)
    [facts] = gather(Subject(network, batches)).running
    [one] = gather(Subject(network, batches[:1])).running
    assert facts.gap_beyond_start == 0
    assert one.gap == 0  # from one alone nothing is known of its error


def test_correlations_that_move_while_the_weights_do_are_a_lag():
    norm = layer("zca").train()
    x = mixed(64, 6)
    turn = torch.eye(6).double()
    turn[1, 0] = 0.2
    still = reference.whitening_norm(x.numpy(), 3, eps=norm.eps)
    old = torch.from_numpy(still.mean), torch.from_numpy(still.covariance)
    drift = Drift({"0": [old]})
    drift.before(sight_of_module("0", norm, x @ turn.T), 2)
    velocity = drift.velocity("0")
    new = reference.whitening_norm((x @ turn.T).numpy(), 3)
    shift = (still.projection @ (new.mean - still.mean).reshape(2, 3, 1)).reshape(6) / 2
    change = still.projection @ (new.covariance - still.covariance) @ still.projection / 2
    expected = shift**2 + (change**2).sum(-1).reshape(6) / 4
    assert velocity.moved(old[1], norm.eps).tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert expected[3:].max() < 1e-20 < expected[0]  # the second group stood still


@pytest.mark.parametrize("kind", walk.WHITENING, ids=lambda kind: kind.__name__)
def test_a_layer_in_any_dimension_is_examined(kind):
    space = {"1": (), "2": (3, 3), "3": (2, 2, 3)}[kind.__name__[-2]]
    norm = layer("zca") if kind is nw.nn.WhiteningNorm1d else kind(6, group_size=3).double()
    batches = tuple(mixed(16, 6, *space) for _ in range(3))
    [facts] = gather(Subject(nn.Sequential(norm), batches)).running
    assert facts.kind == kind.__name__
    assert len(facts.mean_shift) == len(facts.variance_ratio) == 6
