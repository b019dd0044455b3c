"""All fixes on one copy: their order, the evidence before and after, and what stays as it was."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

import normwright as nw
from normwright.doctor import Finding, Subject, all_rules
from normwright.doctor.diagnose import examine
from normwright.doctor.in_short import finite_json
from normwright.doctor.treatments import mending as module
from normwright.doctor.treatments.mending import mend
from normwright.errors import OptionError

NAMES = ("bias_before_norm", "stale_statistics", "weight_decay_on_norm")
RULES = [all_rules()[name] for name in NAMES]


@pytest.fixture
def sick() -> Subject:
    """A network with a needless bias, decay on its normaliser, and statistics that are far off."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    network[1].running_mean.fill_(5.0)
    network[1].num_batches_tracked.fill_(1000)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, weight_decay=1e-3)
    batches = tuple((torch.randn(32, 4), torch.arange(32) % 3) for _ in range(3))
    return Subject(network, batches, nn.functional.cross_entropy, optimiser, sizes=(32, 32, 32))


def test_everything_mechanical_is_mended_on_a_copy(sick):
    before = {name: value.clone() for name, value in sick.network.state_dict().items()}
    diagnosis = examine(sick, RULES)
    assert {finding.rule for finding in diagnosis.findings} == set(NAMES)
    mending = mend(sick, diagnosis, RULES)
    assert [mended.gone for mended in mending.mended] == [True, True, True]
    assert mending.after.findings == ()
    assert mending.network[0].bias is None
    assert not mending.same_weights
    assert mending.other_weights == ("no 0.bias",)
    assert mending.keeping == ("stale_statistics", "weight_decay_on_norm")
    # what depends on the structure comes last
    assert mending.mended[-1].before.rule == "stale_statistics"
    assert all(torch.equal(value, before[name]) for name, value in sick.network.state_dict().items())
    assert len(sick.optimiser.param_groups) == 1
    decays = {group["weight_decay"] for group in mending.optimiser.param_groups}
    assert decays == {0.0, 1e-3}


def test_the_mended_optimiser_trains_the_mended_network(sick):
    mending = mend(sick, examine(sick, RULES), RULES)
    held = {id(parameter) for group in mending.optimiser.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in mending.network.parameters()}


def test_only_what_is_asked_for(sick):
    mending = mend(sick, examine(sick, RULES), RULES, only=["stale_statistics"])
    assert [mended.before.rule for mended in mending.mended] == ["stale_statistics"]
    assert mending.same_weights
    assert mending.new == ()
    assert {finding.rule for finding in mending.left} == {"bias_before_norm", "weight_decay_on_norm"}
    assert "still found: bias_before_norm (1), weight_decay_on_norm (1)" in str(mending)
    assert mending.network[1].running_mean.abs().max() < 5


def test_a_fix_that_fails_is_told_and_leaves_nothing_half_done(sick, monkeypatch):
    def fails(subject: Subject, finding: Finding):
        subject.network[0].weight.data.zero_()
        raise OptionError("this one cannot be mended")

    failing = dataclasses.replace(all_rules()["bias_before_norm"], treat=fails)
    monkeypatch.setitem(module.all_rules(), "bias_before_norm", failing)
    mending = mend(sick, examine(sick, RULES), RULES)
    (failed,) = [each for each in mending.mended if each.before.rule == "bias_before_norm"]
    assert failed.because == "this one cannot be mended"
    assert not failed.gone
    assert torch.equal(mending.network[0].weight, sick.network[0].weight)
    assert "not made: this one cannot be mended" in str(mending)
    assert mending.table().summary == "Mended on a copy: 2 of the 3 findings that --fix is for."


def test_what_a_fix_brings_about_is_told(sick, monkeypatch):
    def careless(subject: Subject, finding: Finding):
        subject.network[0].bias.data.zero_()
        subject.network[1].running_mean.fill_(9.0)
        return subject.network, subject.optimiser

    nw.recalibrate(sick.network, sick.batches)
    recalibrated = examine(sick, RULES)
    assert {finding.rule for finding in recalibrated.findings} == {"bias_before_norm", "weight_decay_on_norm"}
    treated = dataclasses.replace(all_rules()["bias_before_norm"], treat=careless)
    monkeypatch.setitem(module.all_rules(), "bias_before_norm", treated)
    mending = mend(sick, recalibrated, RULES, only=["bias_before_norm"])
    assert [finding.rule for finding in mending.new] == ["stale_statistics"]
    assert "found on the copy alone: stale_statistics (1)" in str(mending)
    assert not mending.mended[0].gone
    assert mending.mended[0].after is not None


def test_nothing_to_mend_is_said(sick):
    mending = mend(sick, examine(sick, RULES), RULES, only=[])
    assert mending.mended == ()
    assert mending.same_weights
    assert "Nothing that was found can be mended" in str(mending)


def test_the_record_is_plain(sick):
    mending = mend(sick, examine(sick, RULES), RULES)
    record = json.loads(finite_json(mending.record()))
    assert [each["before"]["rule"] for each in record["mended"]] == [m.before.rule for m in mending.mended]
    assert record["same_weights"] is False
    assert record["other_weights"] == ["no 0.bias"]


def test_other_weights_are_told_by_name_and_shape(sick, monkeypatch):
    def widened(subject: Subject, finding: Finding):
        subject.network[0] = nn.Linear(4, 6, bias=False)
        subject.network[3] = nn.Linear(6, 5)
        subject.network.add_module("4", nn.Linear(5, 3, bias=False))
        return subject.network, subject.optimiser

    treated = dataclasses.replace(all_rules()["bias_before_norm"], treat=widened)
    monkeypatch.setitem(module.all_rules(), "bias_before_norm", treated)
    mending = mend(sick, examine(sick, RULES), RULES, only=["bias_before_norm"])
    assert mending.other_weights == (
        "no 0.bias",
        "3.weight of shape (5, 6), not of shape (3, 6)",
        "3.bias of shape (5,), not of shape (3,)",
        "4.weight of shape (3, 5), which is new",
    )


def test_what_another_fix_took_away_with_it_is_gone(sick):
    """No normaliser is left that keeps statistics; those that were stale are gone with it."""
    few = tuple((x[:4], y[:4]) for x, y in sick.batches)
    rules = [all_rules()[name] for name in ("batch_too_small", "stale_statistics")]
    subject = dataclasses.replace(sick, batches=few)
    mending = mend(subject, examine(subject, rules), rules)
    assert {each.before.rule for each in mending.mended} == {"batch_too_small", "stale_statistics"}
    assert all(each.gone for each in mending.mended)
