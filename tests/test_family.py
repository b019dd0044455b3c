"""What each verb does with each member of the family: it is served, or refused in these words."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from family import CHANNELS, FAMILY, LENGTH, SAMPLES, Image, Padded, Unrolled, batches_of, network_of
from torch import nn

import normwright as nw
import normwright.nn as ours
from normwright.errors import NormwrightError, OptionError
from normwright.network import find_normalisers
from normwright.network.acceleration.accelerate import accelerate_with_report
from normwright.network.folding.fold import fold_with_report
from normwright.network.freezing import freeze_with_report
from normwright.reference import whitening_norm

SERVED = None

RECALIBRATED = {
    "renorm": SERVED,
    "ghost": SERVED,
    "whitening": SERVED,
    "iterative": SERVED,
    "masked": SERVED,
    "split": SERVED,
    "one domain": SERVED,
    "filter response": "keeps no statistics",
    "dynamic tanh": "keeps no statistics",
    "layer LSTM": "keeps no statistics",
}
ADAPTED = RECALIBRATED | {
    "recurrent": "keeps statistics for each time step",
    "batch LSTM": "keeps statistics for each time step",
}
FOLDED = {
    "renorm": SERVED,
    "ghost": SERVED,
    "whitening": SERVED,
    "iterative": SERVED,
    "split": "it keeps statistics of 2 domains",
    "one domain": SERVED,
    "filter response": "its statistics are those of its input",
    "dynamic tanh": "it takes no moments",
    "masked": "how many elements it is given depends on their values, as under a mask",
    "recurrent": "it is called with more than a tensor",
    "batch LSTM": "in a graph of its own",
    "layer LSTM": "its statistics are those of its input",
}
FROZEN = dict.fromkeys(FAMILY, SERVED) | dict.fromkeys(
    ("layer LSTM", "filter response", "dynamic tanh"), "it has no running statistics"
)
PART = "which takes its numbers and does not call it"
CONVERTED = {
    "renorm": SERVED,
    "ghost": SERVED,
    "whitening": "it decorrelates the channels of a group",
    "iterative": "it decorrelates the channels of a group",
    "split": "it keeps statistics of 2 domains",
    "one domain": SERVED,
    "filter response": "it leaves the mean",
    "dynamic tanh": "it takes no moments",
    "masked": "it leaves padding out of its moments",
    "recurrent": "it keeps statistics for each time step",
    "batch LSTM": PART,
    "layer LSTM": PART,
}
MEMBERS = list(FAMILY)


def close(one, other, roundings=256):
    difference, scale = (part.detach().abs().max() for part in (one - other, other))
    return float(difference) <= roundings * 2.0**-24 * max(1.0, float(scale))


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", MEMBERS)
def test_each_is_found(name):
    assert tuple(find_normalisers(network_of(name, trained=False))) == FAMILY[name].names


@pytest.mark.parametrize("name", RECALIBRATED)
def test_recalibrate(name):
    network, batches = network_of(name), batches_of(name)
    before = state(network)
    if RECALIBRATED[name]:
        with pytest.raises(OptionError, match=RECALIBRATED[name]):
            nw.recalibrate(network, batches)
        assert same(state(network), before)
        return
    handle = nw.recalibrate(network, batches)
    x = torch.cat([x for x, _ in batches]).transpose(1, 2).reshape(-1, CHANNELS)
    if FAMILY[name].padded:
        x = x[(x != 0).any(1)]
    array, norm = x.double().numpy(), network.norm
    np.testing.assert_allclose(norm.running_mean, array.mean(0), rtol=1e-6)
    if name in ("whitening", "iterative"):
        expected = whitening_norm(array, 3).covariance
        np.testing.assert_allclose(norm.running_covariance, expected, rtol=0, atol=3e-6)
    else:
        np.testing.assert_allclose(norm.running_var, array.var(0), rtol=1e-6)
    handle.undo()
    assert same(state(network), before)


@pytest.mark.parametrize("name", ADAPTED)
def test_adapt(name):
    network, batches = network_of(name), batches_of(name)
    before = state(network)
    if ADAPTED[name]:
        with pytest.raises(OptionError, match=ADAPTED[name]):
            nw.adapt(network, batches)
    else:
        moved = copy.deepcopy(network)
        nw.recalibrate(moved, batches)
        with nw.adapt(network, batches, source_weight=0):  # the target's statistics alone: the same as those
            for one, other in zip(network.norm.buffers(), moved.norm.buffers(), strict=True):
                assert close(one.float(), other.float())
    assert same(state(network), before)


def fold_of(name):
    network = network_of(name, nn.Conv1d(CHANNELS, CHANNELS, 1))
    return network, batches_of(name)[0][0]


@pytest.mark.parametrize("name", MEMBERS)
def test_fold(name):
    network, x = fold_of(name)
    folded, report = fold_with_report(network, x)
    assert close(folded(x), network(x))
    for record in report.normalisers:
        if FOLDED[name] is SERVED:
            assert (record.place, record.into) == ("before", ("before",))
        else:
            assert record.place == ""
            assert FOLDED[name] in record.reason


def test_masked_folds_where_nothing_is_masked():
    network = Image(ours.MaskedBatchNorm1d(CHANNELS), nn.Conv1d(CHANNELS, CHANNELS, 1)).eval()
    x = batches_of("renorm")[0][0]
    folded, report = fold_with_report(network, x)
    assert report.normalisers[0].into == ("before",)
    assert close(folded(x), network(x))


@pytest.mark.parametrize("name", MEMBERS)
def test_freeze(name):
    network, batches = network_of(name).train(), batches_of(name)
    if FROZEN[name]:
        with pytest.raises(OptionError, match=FROZEN[name]):
            nw.freeze(network)
        return
    frozen, report = freeze_with_report(network)
    assert all(record.frozen for record in report.normalisers)
    before = dict(frozen.named_buffers())
    before = {key: value.clone() for key, value in before.items()}
    y = frozen.train()(batches[0][0])
    assert all(torch.equal(value, before[key]) for key, value in frozen.named_buffers())
    assert close(y, copy.deepcopy(network).eval()(batches[0][0]))
    thawed = nw.unfreeze(frozen)
    thawed(batches[0][0])
    assert not all(torch.equal(value, before[key]) for key, value in thawed.named_buffers())


@pytest.mark.parametrize("name", MEMBERS)
def test_accelerate(name):
    network, x = network_of(name), batches_of(name)[0][0]
    faster, report = accelerate_with_report(network)
    for module, record in zip(find_normalisers(faster).values(), report.normalisers, strict=True):
        if name == "layer LSTM":
            assert type(module) is ours.LayerNorm
        else:
            assert "is normwright's own, and does more than call an operator" in record.reason
    for mode in (False, True):
        one, other = copy.deepcopy(faster).train(mode)(x), copy.deepcopy(network).train(mode)(x)
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("to", ["batch", "ghost", "group"])
def test_convert(name, to):
    network, x = network_of(name), batches_of(name)[0][0]
    before = state(network)
    if CONVERTED[name]:
        with pytest.raises(NormwrightError, match=CONVERTED[name]):
            nw.convert(network, to, names=FAMILY[name].names, lossy=True)
    else:
        converted = nw.convert(network, to)
        if to == "group":
            assert type(converted.norm).__name__ == "GroupNorm"
        else:
            assert same(state(converted), before)
            assert torch.equal(converted(x), network(x))
        back = nw.convert(converted, {"renorm": "renormalised", "one domain": "split"}.get(name, name))
        assert repr(back) == repr(network)
        assert same(state(back), before)
    assert same(state(network), before)


@pytest.mark.parametrize("to", ["whitening", "recurrent", "masked", "filter_response", "dynamic_tanh"])
def test_convert_to_what_no_other_kind_becomes(to):
    with pytest.raises(OptionError, match=f"is asked to be {to}: it .* Train a network with it"):
        nw.convert(nn.BatchNorm1d(4), to)


def test_convert_to_ghost_takes_the_size_of_a_virtual_batch():
    network = nn.Sequential(nn.BatchNorm1d(4))
    assert nw.convert(network, "ghost")[0].ghost_size == 32
    ghost = nw.convert(network, "ghost", ghost_size=8)
    assert (ghost[0].ghost_size, ghost[0].ragged) == (8, True)
    assert nw.convert(nw.convert(ghost, "batch"), "ghost")[0].ghost_size == 32  # it was batch norm first
    assert nw.convert(ghost, "ghost", ghost_size=2)[0].ghost_size == 2


@pytest.mark.parametrize("name", MEMBERS)
def test_a_healthy_network_of_each_raises_no_alarm(name):
    network = network_of(name).train()
    padding = (lambda batch: (batch[0] == 0).all(1)) if FAMILY[name].padded else None
    diagnosis = nw.diagnose(network, batches_of(name), nn.functional.cross_entropy, padding=padding)
    # a recurrence of eight plain steps has unequal gradients, whatever normalises it
    expected = {"gradient_imbalance"} if name == "recurrent" else set()
    assert {finding.rule for finding in diagnosis.findings} <= expected


def speaks_of(rule, network, batches, **options):
    """Whether a rule, asked alone, finds something."""
    return bool(nw.diagnose(network, batches, nn.functional.cross_entropy, rules=[rule], **options).findings)


@pytest.mark.parametrize(("size", "speaks"), [(4, True), (32, False)])
def test_a_ghost_norm_is_judged_by_its_virtual_batch(size, speaks):
    network = Image(ours.GhostBatchNorm1d(CHANNELS, ghost_size=size))
    for x, _ in batches_of("ghost") * 4:
        network(x)
    assert speaks_of("batch_too_small", network, batches_of("ghost")) == speaks


@pytest.mark.parametrize(("cap", "speaks"), [(1, True), (LENGTH, False)])
def test_statistics_per_time_step_are_not_shared(cap, speaks):
    network = Unrolled(ours.RecurrentBatchNorm(CHANNELS, cap))
    assert speaks_of("recurrent_shared_statistics", network, batches_of("recurrent")) == speaks


@pytest.mark.parametrize("masks", [False, True])
def test_padding_that_a_mask_leaves_out_contaminates_nothing(masks):
    norm = ours.MaskedBatchNorm1d(CHANNELS)
    network = Padded(norm) if masks else Image(norm)
    batches, padding = batches_of("masked"), lambda batch: (batch[0] == 0).all(1)
    assert speaks_of("padding_contamination", network, batches, padding=padding) != masks


def test_accumulated_statistics_leave_padding_out():
    norm, x = ours.MaskedBatchNorm1d(CHANNELS, momentum=1.0), batches_of("masked")[0][0]
    counts = (x != 0).any(1)
    with nw.statistics.accumulate(norm):
        for part in (slice(0, 8), slice(8, SAMPLES)):
            norm(x[part], counts[part])
    elements = x.transpose(1, 2)[counts].double()
    torch.testing.assert_close(norm.running_mean.double(), elements.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), elements.var(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "wrap", [ours.weight_norm, ours.weight_standardization, nn.utils.parametrizations.weight_norm]
)
def test_fold_leaves_a_plain_weight(wrap):
    network = Image(nn.BatchNorm1d(CHANNELS), wrap(nn.Conv1d(CHANNELS, CHANNELS, 3))).eval()
    x = batches_of("renorm")[0][0]
    network.train()(x)
    y = network.eval()(x)
    folded, report = fold_with_report(network, x)
    assert list(dict(folded.before.named_parameters())) == ["weight", "bias"]
    assert report.normalisers[0].into == ("before",)
    assert close(folded(x), y)


def test_each_domain_is_recalibrated_by_its_own_batches():
    network, batches = network_of("split"), batches_of("split")
    first = network.norm.running_mean.clone()
    with ours.domain(network, 1):
        nw.recalibrate(network, batches)
    mean = torch.cat([x for x, _ in batches]).mean((0, 2))
    torch.testing.assert_close(network.norm.running_mean_1, mean, rtol=1e-5, atol=1e-5)
    assert torch.equal(network.norm.running_mean, first)
