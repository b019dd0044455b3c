"""Real processes join what they have read. PEERS: no reduction across ranks, so ranks diverge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from joining_process import batches, network
from processes import STRICT
from seen_inputs import Inputs, assert_statistics, joined

import normwright as nw

WORLD = 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """By case, what each process saved, in the order of the ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    # gloo asks for the host's name, which not every machine can resolve
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *STRICT, Path(__file__).with_name("joining_process.py")]
    processes = [
        subprocess.Popen([*command, str(rank), str(WORLD), folder], env=environment) for rank in range(WORLD)
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 9, 0]
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    return {case: [rank[case] for rank in ranks if case in rank] for case in ranks[0]}


SAMPLES = sum(len(batch) for rank in range(WORLD) for batch in batches(rank))


@pytest.mark.parametrize("case", ["inference", "training", "adapt"])
def test_unequal_and_empty_shares_give_all_the_same_bits(saved, case):
    first, *others = saved[case]
    assert len(others) == 2
    for other in others:
        assert all(torch.equal(value, other["state"][name]) for name, value in first["state"].items())
    assert [each["samples"] for each in saved[case]] == [SAMPLES] * WORLD


@pytest.mark.parametrize("case", ["inference", "training"])
def test_what_they_join_is_the_whole_data_set(saved, case):
    alone = network().train(case == "training")
    norms = {"1": alone[1], "4": alone[4]}
    with Inputs(norms) as inputs:
        nw.recalibrate(alone, [batch for rank in range(WORLD) for batch in batches(rank)])
    alone.load_state_dict(saved[case][0]["state"])
    for name, module in norms.items():
        assert_statistics(module, *joined(inputs.calls[name]), name)


def test_adapting_together_is_adapting_to_the_whole(saved):
    alone = network().eval()
    nw.adapt(alone, [torch.cat([batch for rank in range(WORLD) for batch in batches(rank)])])
    state = saved["adapt"][0]["state"]
    # The first layer's evidence is the same, up to the order of the sums; what it hands on is not, since each
    # process normalises by what it has seen itself.
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(state[f"1.{name}"], getattr(alone[1], name), rtol=1e-6, atol=1e-6)


def test_a_process_that_fails_is_named_in_the_others(saved):
    assert saved["fails"][1]["error"] == "OSError: the disk is gone"
    for rank in (0, 2):
        assert saved["fails"][rank]["error"].startswith("RankError: every process of the group must read")
        assert "rank 1 failed: OSError: the disk is gone" in saved["fails"][rank]["error"]
    assert all(each["same"] for each in saved["fails"])


def test_a_process_that_is_called_wrongly_is_named_in_the_others(saved):
    """They would wait for it to the end of the group's time limit."""
    assert saved["no loader"][1]["error"].startswith("OptionError: batches must be an iterable")
    for rank in (0, 2):
        assert "rank 1 failed: OptionError: batches must be an iterable" in saved["no loader"][rank]["error"]
    assert all(each["same"] for each in saved["no loader"])


@pytest.mark.parametrize("case", ["equal weights", "equal weights by name"])
def test_numbers_that_are_equal_make_the_same_call(saved, case):
    for each in saved[case]:
        assert "error" not in each, each["error"]


DIFFER = {
    "other weight": "adapt(source_weight=16.0) where rank 1 has adapt(source_weight=17.0)",
    "other option": "recalibrate(estimator='total') where rank 1 has recalibrate(estimator='within')",
    "other layers": "4.running_mean (2,) where rank 1 has no more layers",
    "other verb": "recalibrate(estimator='total') where rank 1 has adapt(source_weight=None)",
}


@pytest.mark.parametrize("case", DIFFER)
def test_processes_that_call_otherwise_than_the_first_change_nothing(saved, case):
    for each in saved[case]:
        assert each["error"].startswith("RankError: every process of the group must make the same call")
        assert DIFFER[case] in each["error"]
        assert each["same"]


def test_a_synchronised_layer_that_is_left_alone_waits_for_the_others(saved):
    """A process with more batches waited for the others to the end of the group's time limit."""
    for each in saved["left alone"]:
        assert each["error"].startswith("RankError: every process of the group must have as many batches")
        assert "rank 0 has no more where rank 1 has one" in each["error"]
        assert each["same"]


def test_a_process_that_dies_is_an_error_within_the_time_limit(saved):
    assert len(saved["dies"]) == 2
    for each in saved["dies"]:
        assert each["error"].startswith("RankError: every process of the group must hand in its share")
        assert each["same"]


def test_no_share_at_all(saved):
    for each in saved["nothing"]:
        assert each["error"].startswith("DataError: batches must hold at least one sample")
        assert each["same"]


def test_one_of_several_processes_that_reads_alone_is_warned(saved):
    # warnings are errors in these processes
    for each in saved["alone"]:
        assert each["error"].startswith(
            "UserWarning: this process is one of 3, and reads its own batches alone"
        )
        assert each["same"]
