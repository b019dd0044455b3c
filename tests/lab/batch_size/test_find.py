"""The search as a whole: what it recommends, what ends it, and that it leaves no trace."""

from __future__ import annotations

import dataclasses
import gc
import json
import warnings
import weakref

import pytest
import torch
from advised import Failing, blobs, same, small, trained, whole_state
from torch import nn

import normwright as nw
from normwright.errors import DataError, OptionError, UserCodeError

X, Y = blobs()
QUICK = {"seconds": 0.002}

# Beyond the addresses of a process, so that a real allocation fails.
ABSURD = 2**50


@pytest.mark.parametrize("mode", [True, False])
def test_everything_stays_to_the_bit(mode):
    network = small()
    optimiser = trained(network, X, Y)
    network.train(mode)
    before = whole_state(network, optimiser)
    found = nw.find_batch_size(network, (X, Y), optimiser=optimiser, **QUICK)
    assert same(whole_state(network, optimiser), before)
    assert found.recommended in [trial.batch_size for trial in found.trials]


@pytest.mark.parametrize("data", [(X, Y), (X.numpy(), Y.numpy()), [(X, Y)]])
def test_a_search_is_made_where_tensors_are_made_elsewhere_by_default(data):
    network = small()
    with torch.device("meta"):
        found = nw.find_batch_size(network, data, sizes=(8, 16), **QUICK)
    assert found.recommended in (8, 16)


@pytest.mark.parametrize("stop", [LookupError, KeyboardInterrupt])
def test_everything_stays_where_the_network_stops_it(stop):
    def fail(_):
        raise stop("here")

    network = Failing(8, fail)
    before = whole_state(network)
    with pytest.raises(stop, match="here"):
        nw.find_batch_size(network, (X, Y), **QUICK)
    assert same(whole_state(network), before)


@pytest.fixture
def _no_collection_by_chance():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection_by_chance")
def test_out_of_memory_ends_the_search_and_is_reported():
    made, told = [], []

    def allocate(y):
        made.append(weakref.ref(y))
        ring = [y]
        ring.append(ring)  # so that only a collection frees it
        torch.empty(ABSURD)

    def tell(sentence):
        told.append((sentence, [ref() for ref in made]))

    network = Failing(8, allocate)
    before = whole_state(network)
    found = nw.find_batch_size(network, (X, Y), on_stage=tell, **QUICK)
    assert [trial.batch_size for trial in found.trials] == [2, 4]
    assert found.skipped[-1].batch_size == 8
    assert found.skipped[-1].reason == "ran out of memory"
    assert found.stopped == "batch size 8 ran out of memory"
    assert [each.batch_size for each in found.skipped] == [1, 8]
    # The activations of the failed step are gone while the search goes on.
    assert ("batch size 8: ran out of memory", [None]) in told
    assert same(whole_state(network), before)


def test_no_memory_for_any_size_is_an_error():
    network = Failing(1, lambda y: torch.empty(ABSURD))
    with pytest.raises(
        OptionError, match="at least one batch size must run, but none did: 4, ran out of memory"
    ):
        nw.find_batch_size(network, (X, Y), sizes=(4, 8), **QUICK)


def test_on_the_cpu_a_size_that_would_not_fit_is_not_tried(monkeypatch):
    monkeypatch.setattr("normwright.lab.batch_size.search.available_bytes", lambda _: 10_000)
    network = nn.Linear(100, 2)
    found = nw.find_batch_size(network, blobs(512, 100), **QUICK)
    there = 10_000 + 4 * sum(parameter.numel() for parameter in network.parameters())
    assert found.available_bytes == there
    peaks = {trial.batch_size: trial.peak_bytes for trial in found.trials}
    last = max(peaks)
    assert peaks[last] <= 0.9 * there
    # A sample is 100 float32, so the next size would have needed at least as much again for the batch alone.
    assert peaks[last] + 400 * last > 0.9 * there
    assert found.skipped[-1].batch_size == 2 * last
    assert "would need about" in found.stopped
    assert found.trials[-1].memory_left == 1 - peaks[last] / there


def test_a_step_s_memory_is_counted_exactly():
    found = nw.find_batch_size(
        nn.Linear(8, 2, bias=False), (X, Y), loss=lambda o, y: o.sum(), sizes=(4, 32), **QUICK
    )
    peaks = {trial.batch_size: trial.peak_bytes for trial in found.trials}
    # Of a sample: 8 features of 4 bytes, a label of 8, 2 outputs of 4; what else a step holds is as large.
    assert peaks[32] - peaks[4] >= 28 * (32 + 8 + 8)
    assert peaks[32] - peaks[4] <= 28 * (32 + 8 + 4 * 8)


def test_batch_norm_skips_one_sample_and_the_noise_falls():
    found = nw.find_batch_size(small(), blobs(512), sizes=(1, 4, 64, 512), **QUICK)
    assert found.skipped[0].batch_size == 1
    assert found.skipped[0].reason == "batch norm '1' would take a moment of one element"
    few, many, all_ = (trial.noise for trial in found.trials)
    assert few.layers[0].name == "1"
    assert (few.layers[0].elements, many.layers[0].elements) == (4, 64)
    # 1/2 against 1/8 of a deviation. Eight channels over 32 and 8 mini-batches know each to 5 and 10 %.
    assert 2.5 < few.mean_largest / many.mean_largest < 6
    assert all_ is None
    assert "fewer than two such mini-batches" in found.trials[-1].noise_reason
    assert found.trials[-1].noise_reason in str(found)


def test_without_batch_norm_noise_does_not_apply():
    found = nw.find_batch_size(nn.Sequential(nn.Linear(8, 2), nn.LayerNorm(2)), (X, Y), sizes=(1, 8), **QUICK)
    assert [trial.noise for trial in found.trials] == [None, None]
    assert str(found).count("has no batch norm that takes moments of the batch") == 1
    assert "mean noise" not in str(found)


def test_the_search_ends_with_the_data():
    found = nw.find_batch_size(nn.Linear(8, 2), blobs(24), tolerance=0.9, **QUICK)
    sizes = [trial.batch_size for trial in found.trials]
    assert sizes == [1, 2, 4, 8, 16][: len(sizes)]
    if sizes[-1] == 16:
        assert found.stopped in ("the data hold 24 samples", found.stopped)
    asked = nw.find_batch_size(nn.Linear(8, 2), blobs(24), sizes=(8, 32), **QUICK)
    assert [each.reason for each in asked.skipped] == ["the data hold 24 samples"]


def test_one_batch_only():
    found = nw.find_batch_size(small(), [(X, Y)], sizes=(8, 64), **QUICK)
    assert found.trials[0].noise is not None
    assert found.trials[1].noise is None


def test_the_search_ends_where_rates_level_off(monkeypatch):
    """By a clock of the test's own: a step takes 1 s, and 1 s more for every 16 samples."""
    now = [0.0]

    def block(clock, trainee, batch, limit):
        trainee.step(batch)
        clock.seconds += [1.0 + clock.batch_size / 16] * 7

    monkeypatch.setattr("normwright.lab.batch_size.clock.Clock.block", block)
    found = nw.find_batch_size(nn.Linear(8, 2), blobs(4096))
    rates = {trial.batch_size: trial.rate for trial in found.trials}
    assert rates == {size: size / (1 + size / 16) for size in rates}
    # At 256 of 272 and at 512 of 528: less than 5 % more than before, each time.
    assert max(rates) == 1024
    assert found.recommended == 256
    assert found.stopped == "two sizes in a row raised samples per second by less than 5 %"
    assert all(trial.certain for trial in found.trials)
    assert not found.notes
    assert now == [0.0]


def test_sizes_are_timed_again_in_turn_until_they_are_known(monkeypatch):
    blocks = []

    def block(clock, trainee, batch, limit):
        blocks.append((clock.batch_size, len(batch[0])))
        if len(blocks) > 2 and clock.batch_size == 4:
            clock.seconds = [1.0] * 8  # known at its second block
        else:
            clock.seconds += [1.0, 1.1] * 4

    monkeypatch.setattr("normwright.lab.batch_size.clock.Clock.block", block)
    found = nw.find_batch_size(nn.Linear(8, 2), (X, Y), sizes=(4, 8), seconds=20.0)
    assert blocks == [(4, 4), (8, 8), (4, 4), (8, 8), (8, 8)]
    assert [trial.certain for trial in found.trials] == [True, False]
    assert "Not known to 2 % within 20 s: the rate at 8." in found.notes[-1]


def test_a_name_is_built_with_the_normaliser_asked_for():
    found = nw.find_batch_size("mlp", "digits", norm="layer", depth=1, width=4, sizes=(8, 16), **QUICK)
    assert (found.network, found.data, found.samples) == ("mlp", "digits", 1293)
    assert found.trials[0].noise is None
    assert (
        nw.find_batch_size("mlp", "digits", depth=1, width=4, sizes=(8,), **QUICK).trials[0].noise is not None
    )


def test_the_record_is_plain_and_prints():
    found = nw.find_batch_size(small(), (X, Y), sizes=(1, 8, 16), **QUICK)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["recommended"] == found.recommended
    assert str(found).startswith(f"Take batch size {found.recommended}: it ")
    arrows = [line for line in str(found).splitlines() if line.startswith("→")]
    assert len(arrows) == 1
    assert arrows[0].split()[1] == str(found.recommended)


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nw.find_batch_size(small(), (X, Y), sizes=(8,), **QUICK)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (
            {"sizes": (128,)},
            DataError,
            "at least as many samples as the smallest batch size .128., but hold 64",
        ),
        ({"sizes": ()}, OptionError, "a sequence such as"),
        ({"sizes": (0,)}, OptionError, "at least 1 and a whole number, but is 0"),
        ({"sizes": (True,)}, OptionError, "whole number, but is True"),
        ({"sizes": 8}, OptionError, "a sequence such as"),
        ({"tolerance": 1.5}, OptionError, "tolerance must be above 0 and below 1, but is 1.5"),
        ({"seconds": 0}, OptionError, "seconds must be above 0, but is 0"),
        ({"optimiser": "sdg"}, OptionError, "unknown optimiser 'sdg': did you mean 'sgd'"),
        ({"loss": "mes"}, OptionError, "unknown loss 'mes': did you mean 'mse'"),
        ({"norm": "batch"}, OptionError, "taken as it is, but norm came too"),
        ({"depht": 3}, OptionError, "unknown option 'depht': did you mean 'depth'"),
        ({"epochs": 3}, OptionError, "unknown option 'epochs'"),
        (
            {"optimiser": torch.optim.Adam, "momentum": 0.5},
            OptionError,
            "momentum go with an optimiser by name",
        ),
    ],
)
def test_what_cannot_be_asked(asked, error, message):
    with pytest.raises(error, match=message):
        nw.find_batch_size(small(), (X, Y), **QUICK | asked)


def test_what_the_network_cannot_take():
    with pytest.raises(
        UserCodeError, match=r"must take a batch of \(2, 8\) and \(2,\), but raised RuntimeError"
    ):
        nw.find_batch_size(nn.Linear(5, 2), (X, Y), **QUICK)
    with pytest.raises(OptionError, match=r"must be a .*Module, but is int"):
        nw.find_batch_size(3, (X, Y), **QUICK)


def test_a_sparse_and_an_expanded_buffer_end_no_search():
    network = small()
    network.register_buffer("sparse", torch.eye(3).to_sparse())
    network.register_buffer("expanded", torch.zeros(1).expand(5))
    assert nw.find_batch_size(network, (X, Y), sizes=(8, 16), **QUICK).recommended in (8, 16)
