"""The range test as a whole: known ranges, the comparison of both networks, and that it leaves no trace."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics

import pytest
import torch
from advised import Failing, blobs, same, small, trained, whole_state
from torch import nn

import normwright as nw
from normwright.errors import DataError, OptionError, UserCodeError

X, Y = blobs(256)
QUICK = {"batch_size": 32, "steps": 40, "seeds": 2}


class Parabola(nn.Module):
    """Has the loss curvature/2 · w², whatever the samples, so that gradient descent is known exactly."""

    def __init__(self, curvature):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.curvature = curvature

    def forward(self, x):
        return self.curvature / 2 * self.w**2 + 0 * x.sum()


def test_of_a_parabola_the_losses_and_the_upper_end_are_known():
    curvature = 4.0
    found = nw.lr_range_test(
        Parabola(curvature),
        (X, Y),
        loss=lambda outputs, _: outputs,
        batch_size=32,
        low=1e-4,
        high=10.0,
        seeds=1,
    )
    curve = found.ranges[0].curves[0]
    w, expected = 1.0, []
    for rate in curve.rates:
        w *= 1 - rate * curvature
        expected.append(curvature / 2 * w * w)
    assert list(curve.losses) == pytest.approx(expected)
    assert (curve.start, curve.noise) == (2.0, 0.0)
    # A step multiplies w by 1 − rate·curvature: beyond 2/curvature it grows. By then w is so small that it
    # may grow for some steps before the loss is seen to rise; each is a ratio of 10^(5/99).
    assert 2 / curvature < curve.upper < 2 / curvature * 10 ** (5 / 99 * 20)
    assert curve.ended == "the loss rose far above its start"
    assert not curve.open_above
    assert found.ranges[0].label == "as it is"
    assert (found.widening, len(found.ranges)) == (None, 1)
    assert "no normaliser" in found.notes[0]


def test_every_rate_that_is_named_was_run():
    found = nw.lr_range_test(small(), (X, Y), high=100.0, **QUICK | {"steps": 80})
    assert [usable.label for usable in found.ranges] == ["with normalisers", "without"]
    for usable in found.ranges:
        runs = [set(curve.rates) for curve in usable.curves]
        assert {usable.lower, usable.steepest, usable.upper} <= set.intersection(*runs)
        assert usable.lower <= usable.steepest <= usable.upper
        assert usable.lower == max(curve.lower for curve in usable.curves)
        assert usable.upper == min(curve.upper for curve in usable.curves)
        assert usable.decades == pytest.approx(math.log10(usable.upper / usable.lower))
    assert found.recommended == found.ranges[0].steepest
    assert found.widening == pytest.approx(found.ranges[0].decades - found.ranges[1].decades)
    assert found.upper_ratio == pytest.approx(found.ranges[0].upper / found.ranges[1].upper)


def test_normalisers_widen_the_range_of_a_deep_sigmoid_network():
    found = nw.lr_range_test("mlp", "digits", batch_size=64, width=32, seeds=2, steps=60)
    assert found.ranges[0].decades > 0.5
    assert found.ranges[1].decades is None
    assert found.why.endswith("where without normalisers no rate is usable.")
    # Both have the same weights and samples: so has a test of the network without.
    bare = nw.lr_range_test("mlp", "digits", norm="none", batch_size=64, width=32, seeds=2, steps=60)
    assert [curve.losses for curve in bare.ranges[0].curves] == [c.losses for c in found.ranges[1].curves]


@pytest.mark.parametrize("mode", [True, False])
def test_everything_stays_to_the_bit(mode):
    network = small()
    optimiser = trained(network, X, Y)
    network.train(mode)
    before = whole_state(network, optimiser)
    nw.lr_range_test(network, (X, Y), optimiser=optimiser, **QUICK)
    assert same(whole_state(network, optimiser), before)


@pytest.mark.parametrize("stop", [LookupError, KeyboardInterrupt])
def test_everything_stays_where_the_network_stops_it(stop):
    calls = []

    def fail(_):
        calls.append(1)
        if len(calls) > 30:
            raise stop("here")

    network = Failing(8, fail)
    before = whole_state(network)
    with pytest.raises(stop, match="here"):
        nw.lr_range_test(network, (X, Y), **QUICK)
    assert same(whole_state(network), before)


def test_equal_calls_give_equal_bits():
    first, second = (nw.lr_range_test(small(), (X, Y), **QUICK) for _ in range(2))
    assert first == second
    seeds = first.ranges[0].curves
    assert seeds[0].losses != seeds[1].losses


def test_seeds_of_a_name_draw_their_own_weights():
    found = nw.lr_range_test("mlp", "digits", depth=1, width=8, batch_size=1293, steps=20, seeds=2)
    starts = [curve.start for curve in found.ranges[0].curves]
    assert starts[0] != starts[1]
    assert "make one mini-batch" in found.notes[0]


def test_labels_without_a_pattern_have_no_usable_rate():
    random = torch.randint(2, (4096,), generator=torch.Generator().manual_seed(1))
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(2))
    network = nn.Linear(8, 2)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    found = nw.lr_range_test(network, (x, random), batch_size=32, high=0.1, steps=40, seeds=2)
    assert found.recommended is None
    assert str(found).startswith("No rate that was run can be recommended: the loss of the network itself")


def test_a_last_layer_that_starts_almost_at_zero_learns_no_more_from_such_labels():
    """Its losses before the first step are all but equal, so that they say nothing of how losses scatter."""
    found = []
    for seed in range(8):
        torch.manual_seed(seed)
        labels = torch.randint(2, (4096,))
        network = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        with torch.no_grad():
            network[3].weight.mul_(0.01)
            network[3].bias.zero_()
        data = torch.randn(4096, 8), labels
        found.append(nw.lr_range_test(network, data, batch_size=16, steps=60, seeds=1).recommended)
    assert found.count(None) >= 6


def test_a_range_beyond_the_rates_is_said_to_go_on():
    found = nw.lr_range_test(small(), (X, Y), low=0.05, high=0.5, **QUICK)
    usable = found.ranges[0]
    assert usable.open_above
    assert "≥ 0.5" in str(found)


def test_progress_is_told_step_by_step():
    told = []
    nw.lr_range_test(small(), (X, Y), on_progress=lambda *args: told.append(args), **QUICK)
    assert told[0] == (0, 4, [("with normalisers, seed 0", 1, 40)])
    assert told[-1] == (4, 4, [])


def test_the_record_is_plain():
    found = nw.lr_range_test(small(), (X, Y), **QUICK)
    again = json.loads(json.dumps(dataclasses.asdict(found)))
    assert again["ranges"][0]["upper"] == found.ranges[0].upper


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"batch_size": 512}, DataError, "at least one mini-batch of 512 samples, but hold 256"),
        ({"batch_size": 0}, OptionError, "batch_size must be at least 1 and a whole number, but is 0"),
        (
            {"batch_size": 1},
            OptionError,
            "'1' would take a moment of one element at batch size 1: take at least",
        ),
        ({"steps": 5}, OptionError, "steps must be at least 20"),
        ({"seeds": 1.5}, OptionError, "seeds must be at least 1 and a whole number, but is 1.5"),
        ({"low": 1.0, "high": 0.1}, OptionError, "must rise from low to high"),
        ({"low": 0.0}, OptionError, "both above 0"),
        ({"high": math.inf}, OptionError, "must rise"),
        ({"high": math.nan}, OptionError, "must rise"),
    ],
)
def test_what_cannot_be_asked(asked, error, message):
    with pytest.raises(error, match=message):
        nw.lr_range_test(small(), (X, Y), **QUICK | asked)


def test_what_the_network_cannot_take():
    with pytest.raises(UserCodeError, match=r"must take a batch of \(32, 8\) and \(32,\), but raised"):
        nw.lr_range_test(nn.Linear(5, 2), (X, Y), **QUICK)
    with pytest.raises(OptionError, match="must fit the memory of cpu, but does not"):
        nw.lr_range_test(Failing(8, lambda y: torch.empty(2**50)), (X, Y), **QUICK)


class Counting(nn.Module):
    """Its output is the number of its calls in a buffer, whatever the samples."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.calls + 0 * self.w * x.sum()


def test_what_is_looked_at_before_the_first_step_leaves_no_trace_in_the_sweep():
    found = nw.lr_range_test(Counting(), (X, Y), loss=lambda outputs, _: outputs, batch_size=32, steps=20)
    # One call for the first step, and one for the loss after it.
    assert [curve.losses[0] for curve in found.ranges[0].curves] == [2.0, 2.0, 2.0]


def test_a_loss_that_is_not_finite_to_begin_with():
    with pytest.raises(DataError, match="must be finite before the first step, but is not: look for NaN"):
        nw.lr_range_test(small(), (X * torch.nan, Y), **QUICK)


def test_a_network_that_overflows_without_its_normalisers_has_no_range_there():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    with torch.no_grad():
        network[0].weight.mul_(1e30)
        network[2].weight.mul_(1e10)
    network[2].requires_grad_(False)
    network[1].weight.data.mul_(1e-10)
    found = nw.lr_range_test(network, (X, Y), **QUICK)
    assert [(curve.start, curve.rates) for curve in found.ranges[1].curves] == [(math.inf, ())] * 2
    assert found.ranges[1].decades is None
    assert found.ranges[0].curves[0].start < 10


@pytest.mark.parametrize(("seeds", "is_steepest"), [(2, False), (3, True)])
def test_an_end_of_the_range_is_not_said_to_be_where_the_loss_falls_most(seeds, is_steepest):
    found = nw.lr_range_test(small(), (X, Y), **QUICK | {"seeds": seeds})
    steepest = statistics.median_low(curve.steepest for curve in found.ranges[0].curves)
    assert (found.recommended == steepest) is is_steepest
    assert found.why.startswith(
        "there the loss" if is_steepest else "it is the end nearest to where the loss"
    )


class _OtherEachSeed(nn.Module):
    """Has the loss 2·(1 + steepness·(w − 1))², whose usable rates go with 1/steepness²."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, x):
        steepness = 100.0 if torch.initial_seed() else 1.0
        return 2 * (1 + steepness * (self.w - 1)) ** 2 + 0 * x.sum()


def test_ranges_without_a_rate_in_common_are_not_said_to_be_none():
    found = nw.lr_range_test(
        _OtherEachSeed(), (X, Y), lambda outputs, _: outputs, batch_size=32, low=1e-7, high=10.0, seeds=2
    )
    first, second = found.ranges[0].curves
    assert second.upper < first.lower
    assert found.recommended is None
    assert found.why == "each seed has a usable range, but there is no rate that all of these hold."


def test_it_runs_in_inference_mode():
    with torch.inference_mode():
        found = nw.lr_range_test(small(), (X, Y), **QUICK)
    assert found == nw.lr_range_test(small(), (X, Y), **QUICK)
