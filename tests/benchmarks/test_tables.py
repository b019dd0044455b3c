"""What the tables say."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.headline import HEADLINE
from benchmarks.measure import Failed, Measured
from benchmarks.operators import main
from benchmarks.saving import plain
from benchmarks.speed_table import speed_table, verdict
from benchmarks.ulps import Error
from benchmarks.variants import VARIANTS
from normwright.network.walk import find_normalisers

CASE = next(iter(HEADLINE))
ERRORS = {"y": {"ours": Error(0.1, 0.5), "eager": Error(0.2, float("inf"))}}


def measured(*, ours, case=CASE):
    return Measured(case, 9, 1.0, {"ours": ours, "eager": 4.0}, {"eager": ours / 4.0}, ERRORS)


@pytest.mark.parametrize(("ours", "reached"), [(1.29, "yes"), (1.31, "no")])
def test_a_row_of_the_headline_is_judged(ours, reached):
    head, _, row = speed_table([measured(ours=ours)]).splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["reach"] == "1.3"
    assert row.endswith(f"{reached} |")
    assert "not finite" in row


def test_the_verdict_names_what_is_slower_and_what_failed():
    slow = replace(CASE, threads=1)
    rows = [measured(ours=3.0), measured(ours=5.0, case=slow)]
    assert "No shape slower than eager: 1 cases" in verdict(rows[:1])
    text = verdict([*rows, Failed(CASE, "ValueError: no")])
    assert "1 of 2 cases" in text
    assert f"1.25 {slow.label}" in text
    assert f"{CASE.label}: ValueError: no" in text


def test_records_are_strict_json():
    saved = json.dumps(plain([measured(ours=3.0)]), allow_nan=False)
    assert json.loads(saved)[0]["errors"]["y"]["eager"] == {"median": 0.2, "largest": None}


def test_a_quick_run_prints_and_saves(tmp_path, capfd):
    main(
        [
            "--quick",
            "--set",
            "headline",
            "--only",
            "rms_norm",
            "--allocator",
            "default",
            "--out",
            str(tmp_path),
        ]
    )
    printed = capfd.readouterr().out
    assert "rms_norm" in printed
    assert "Verdict" in printed
    saved = json.loads((tmp_path / "operators.json").read_text())
    assert len(saved["sets"]["headline"]["default allocator"]) == 1
    assert "rms_norm" in (tmp_path / "operators.md").read_text()


def test_variants_leave_the_network_alone():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
    variants = {name: make(network) for name, make in VARIANTS.items()}
    assert {name: len(find_normalisers(variant)) for name, variant in variants.items()} == {
        "eager": 1,
        "accelerated": 1,
        "without": 0,
    }
    assert type(network[1]) is nn.BatchNorm1d
    assert torch.equal(variants["without"][0].weight, network[0].weight)
