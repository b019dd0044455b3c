"""Population statistics of networks on the device, from batches that lie on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from placed import CASES, NETWORKS, ROUNDING, apart, assert_as_exact_as, place, placement, same, values
from seen_inputs import Inputs, assert_statistics, joined
from torch import nn

import normwright as nw
from normwright.errors import DataError, DeviceError
from normwright.network import find_normalisers
from normwright.statistics import AdaptedStream

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

STATISTICS = ("running_mean", "running_var")


def unguarded(outputs):
    """Networks with drawn weights may well answer one class."""


def assert_alike(network, exact):
    """float64 statistics on the device and on the CPU."""
    for name, buffer in exact.named_buffers():
        if name.endswith(STATISTICS):
            assert apart(network.get_buffer(name), buffer) <= ROUNDING, name


@pytest.mark.parametrize(("name", "way"), CASES)
def test_recalibrate(name, way, device):
    case = place(name, way, device)
    network, normalisers = case.network, find_normalisers(case.network)
    before, where = values(network), placement(network)
    with case.context(), Inputs(normalisers) as inputs:
        handle = nw.recalibrate(network, case.batches)
    assert not any(layer.reason for layer in handle.layers)
    assert placement(network) == where
    if way == "float64":
        nw.recalibrate(case.exact, case.batches)
        assert_alike(network, case.exact)
    else:
        for key, module in normalisers.items():
            assert_statistics(module, *joined(inputs.calls[key]), key)
    handle.undo()
    assert same(values(network), before)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_adapt_to_one_batch_alone(name, way, device):
    case = place(name, way, device)
    network, normalisers = case.network, find_normalisers(case.network)
    before, where = values(network), placement(network)
    with case.context(), Inputs(normalisers) as inputs:
        handle = nw.adapt(network, case.batches[:1], source_weight=0, scores_of=unguarded)
    assert placement(network) == where
    for key, module in normalisers.items():
        assert_statistics(module, *joined(inputs.calls[key]), key)
    handle.undo()
    assert same(values(network), before)


@pytest.mark.parametrize("weight", [None, 4.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_adapt_blends_as_on_the_cpu(name, weight, device):
    case = place(name, "float64", device)
    for network in (case.network, case.exact):
        nw.adapt(network, case.batches, source_weight=weight, scores_of=unguarded)
    assert_alike(case.network, case.exact)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_an_adapted_stream_answers_each_batch_by_its_own_statistics(name, way, device):
    case = place(name, way, device)
    before, where = values(case.network), placement(case.network)
    with AdaptedStream(case.network, source_weight=0, scores_of=unguarded) as stream, case.context():
        answers = [stream(batch) for batch in case.batches]
    assert placement(case.network) == where
    assert same(values(case.network), before)
    training = [copy.deepcopy(network).train() for network in (case.network, case.exact)]
    for y, batch in zip(answers, case.batches, strict=True):
        y = getattr(y, "logits", y)
        assert y.device == device
        with torch.no_grad():
            model, exact = case.answer(training[0], batch), training[1](batch.double())
        assert_as_exact_as(case, y, model, getattr(exact, "logits", exact))


def elsewhere(device):
    """Another device than the one that is tried."""
    return "meta" if device.type == "cpu" else "cpu"


VERBS = {
    "recalibrate": lambda network, x, call: nw.recalibrate(network, [x], forward_fn=call),
    "adapt": lambda network, x, call: nw.adapt(network, [x], forward_fn=call),
    "stream": lambda network, x, call: AdaptedStream(network, forward_fn=call).__enter__()(x),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_batch_that_is_left_on_another_device_is_refused(verb, device):
    network = nn.Sequential(nn.BatchNorm2d(3)).to(device).eval()
    before = values(network)
    x = torch.ones(4, 3, 2, 2, device=elsewhere(device))
    with pytest.raises(DeviceError, match=r"to be on the same device.*move .* with \.to\(device\)"):
        VERBS[verb](network, x, lambda network, x: network(x))
    assert same(values(network), before)


def test_what_is_not_finite_is_named_and_changes_nothing(device):
    case = place("residual", "float32", device)
    before = values(case.network)
    bad = case.batches[1].clone()
    bad[1, 0] = torch.nan
    with pytest.raises(DataError, match=r"'stem\.1'.*in batch 2"):
        nw.recalibrate(case.network, [case.batches[0], bad])
    assert same(values(case.network), before)
