"""The rows on a GPU, their goals, and how a measured row is judged by them."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.cases import Case
from benchmarks.device import judgement, sets
from benchmarks.device.bandwidth import least_copies
from benchmarks.device.goals import COMPILED, DEVICE_HEADLINE
from benchmarks.device.measure import DeviceMeasured

BATCH = Case(
    "batch_norm",
    (64, 256, 56, 56),
    residual=True,
    activation="relu",
    layout="channels-last",
    dtype="bfloat16",
)
GROUP = Case(
    "group_norm", (64, 128, 64, 64), groups=32, activation="silu", layout="channels-last", dtype="bfloat16"
)
ROWS = Case("rms_norm", (8192, 4096), normalized_shape=(4096,), dtype="bfloat16")


def test_every_row_is_large_and_has_both_modes():
    assert all(math.prod(case.shape) >= 2**24 for case in DEVICE_HEADLINE)
    modes = Counter(replace(case, mode="step") for case in DEVICE_HEADLINE)
    assert set(modes.values()) == {2}
    assert set(COMPILED) <= set(modes)


def test_goals_are_those_of_the_kernels_issue():
    assert DEVICE_HEADLINE[replace(ROWS, mode="forward")].fraction == 0.90
    assert DEVICE_HEADLINE[ROWS].fraction == 0.85
    assert DEVICE_HEADLINE[ROWS].times == {"liger": 1.0, "quack": 1.0}
    assert DEVICE_HEADLINE[BATCH].fraction == pytest.approx(1 / 1.15)
    assert DEVICE_HEADLINE[BATCH].times == {"eager": 1.5, "compiled": 1.0}
    assert DEVICE_HEADLINE[replace(BATCH, layout="contiguous")].times == {}
    assert DEVICE_HEADLINE[GROUP].times == {"eager": 3.0}


def test_goals_are_frozen():
    with pytest.raises(TypeError):
        DEVICE_HEADLINE[ROWS].times["eager"] = 9.0


def measured(case, *, share, **rivals):
    """A row whose kernel reaches a share of the copy's bandwidth; rivals take so many times ours."""
    copy = 1e-4
    ours = least_copies(case) * copy / share
    seconds = {"copy": copy, "ours": ours} | {name: times * ours for name, times in rivals.items()}
    return DeviceMeasured(case, 11, 2, seconds)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (measured(ROWS, share=0.86, liger=1.1, quack=1.0), "yes"),
        (measured(ROWS, share=0.84, liger=1.1, quack=1.1), "no: 0.84 of the copy bandwidth (asked: 0.85)"),
        (measured(ROWS, share=0.9, liger=0.8, quack=1.1), "no: 0.80 of liger's speed (asked: 1.00)"),
        (measured(ROWS, share=0.9, liger=1.1), "as far as measured (not: quack's speed)"),
        (measured(BATCH, share=0.88, eager=1.51, compiled=1.0), "yes"),
        (measured(BATCH, share=0.88, eager=1.49, compiled=1.0), "no: 1.49 of eager's speed (asked: 1.50)"),
        (measured(GROUP, share=0.9, eager=2.9), "no: 2.90 of eager's speed (asked: 3.00)"),
        (measured(replace(ROWS, shape=(2, 4096)), share=0.1), ""),
    ],
)
def test_a_row_is_judged(row, words):
    assert judgement.cell(row) == words


def test_the_verdict_names_every_miss():
    rows = [measured(ROWS, share=0.9, liger=2.0), measured(GROUP, share=0.5, eager=4.0)]
    first, *misses = judgement.verdict(rows)
    assert "1 of 2 rows" in first
    assert misses == [f"{judgement.place(rows[1])}: 0.50 of the copy bandwidth (asked: 0.85)"]


def test_the_networks_cases_fill_a_gpu():
    entries = sets.networks()
    assert {case.source: case.shape[0] for (case,) in entries} == sets.BATCHES
    assert {case.dtype for (case,) in entries} == {"bfloat16"}
