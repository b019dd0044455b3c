"""Real processes join what they have read. PEERS: no reduction across ranks, so ranks diverge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import batches, network
from seen import Inputs, assert_statistics, joined

import normwright as nw

WORLD = 3


def run(folder, case, *, dead=()):
    """What each living process saved."""
    # gloo asks for the host's name, which not every machine can resolve
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", Path(__file__).with_name("ranks.py")]
    processes = [
        subprocess.Popen([*command, str(rank), str(WORLD), folder, case], env=environment)
        for rank in range(WORLD)
    ]
    codes = [process.wait(timeout=120) for process in processes]
    assert [rank for rank, code in enumerate(codes) if code] == list(dead)
    return {
        rank: torch.load(folder / f"{rank}.pt", weights_only=True)
        for rank in range(WORLD)
        if rank not in dead
    }


@pytest.mark.parametrize("case", ["inference", "training"])
def test_unequal_and_empty_shares_give_all_the_same_bits(tmp_path, case):
    saved = run(tmp_path, case)
    for other in (saved[1], saved[2]):
        assert all(torch.equal(value, other["state"][name]) for name, value in saved[0]["state"].items())
    alone = network().train(case == "training")
    norms = {"1": alone[1], "4": alone[4]}
    with Inputs(norms) as inputs:
        nw.recalibrate(alone, [batch for rank in range(WORLD) for batch in batches(rank)])
    alone.load_state_dict(saved[0]["state"])
    for name, module in norms.items():
        assert_statistics(module, *joined(inputs.calls[name]), name)
    samples = sum(len(batch) for rank in range(WORLD) for batch in batches(rank))
    assert all(each["samples"] == samples and each["elements"] == [samples] * 2 for each in saved.values())


def test_a_process_that_fails_is_named_in_the_others(tmp_path):
    saved = run(tmp_path, "fails")
    assert saved[1]["error"] == "OSError: the disk is gone"
    for rank in (0, 2):
        assert saved[rank]["error"].startswith("RankError: every process of the group must read its share")
        assert "rank 1 failed: OSError: the disk is gone" in saved[rank]["error"]
    assert all(each["same"] for each in saved.values())


def test_a_process_that_dies_is_an_error_within_the_time_limit(tmp_path):
    saved = run(tmp_path, "dies", dead=(1,))
    for each in saved.values():
        assert each["error"].startswith("RankError: every process of the group must hand in its share")
        assert each["same"]


def test_no_share_at_all(tmp_path):
    saved = run(tmp_path, "nothing")
    for each in saved.values():
        assert each["error"].startswith("DataError: batches must hold at least one batch")
        assert each["same"]
