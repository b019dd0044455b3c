"""SyncBatchNorm on the device: one process over NCCL (on the CPU, gloo), and two that share the device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from shares import second_case, second_derivatives
from synchronised import SHARES, WAYS, alone, assert_as_in_one_process, close, images, network

from normwright.functional import batch_norm
from normwright.statistics import recalibrate

# Two processes on the CPU: tests/nn and tests/functional. Each number is one process's of pytest-xdist.
WORLDS = [
    pytest.param(world, marks=pytest.mark.xdist_group(f"world of {world}"))
    for world in ((1,) if os.environ.get("NORMWRIGHT_TEST_DEVICE", "cpu") == "cpu" else (1, 2))
]


@pytest.fixture(scope="module", params=WORLDS)
def ranks(request, device, tmp_path_factory):
    """What each of the processes saved."""
    script, folder = Path(__file__).with_name("sharing.py"), tmp_path_factory.mktemp("ranks")
    return run_ranks(script, folder, str(device), str(request.param), world=request.param)


@pytest.fixture(scope="module")
def joined():
    """The state after the same steps in one process, on the CPU."""
    return alone()


@pytest.mark.parametrize("way", WAYS)
def test_parameters_and_statistics_are_those_of_one_process(way, ranks, joined):
    assert_as_in_one_process(way, ranks, joined)


@pytest.mark.parametrize("activation", [None, "silu"])
def test_the_second_and_third_derivatives(activation, ranks):
    x, dy, v, weight = second_case(activation)
    expected = second_derivatives(batch_norm, x, dy, v, weight, activation)
    by_x, by_dy, by_weight, third = zip(*(rank["second"][str(activation)] for rank in ranks), strict=True)
    for actual, model in zip(
        (torch.cat(by_x), torch.cat(by_dy), sum(by_weight), torch.cat(third)), expected, strict=True
    ):
        assert close(actual, model)


def test_recalibrating_together_is_recalibrating_on_all_shares(ranks):
    shares = SHARES[0] if len(ranks) > 1 else (sum(SHARES[0]),)
    part = network()
    recalibrate(part, images(0).split(list(shares)))
    for seen in ranks:
        for key, value in part.state_dict().items():
            assert close(seen["recalibrated"][key], value), key
            assert torch.equal(seen["recalibrated"][key], ranks[0]["recalibrated"][key])


def test_empty_shares(ranks):
    for seen in ranks:
        assert [tuple(part.shape) for part in seen["all empty"]] == [(0, 3, 4)] * 2
