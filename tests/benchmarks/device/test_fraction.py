"""The fraction of the copy bandwidth, and the sets that keep the cache out of it."""

from dataclasses import replace

import pytest

from benchmarks.cases import Case
from benchmarks.device.bandwidth import copy_bandwidth, fraction, least_copies
from benchmarks.device.goals import DEVICE_HEADLINE
from benchmarks.device.rotation import sets_needed
from benchmarks.least import least

ROWS = Case("rms_norm", (8192, 4096), normalized_shape=(4096,), dtype="bfloat16")
BATCH = Case("batch_norm", (64, 256, 56, 56), residual=True, activation="relu", dtype="bfloat16")


@pytest.mark.parametrize(
    ("case", "copies"),
    [
        (replace(ROWS, mode="forward"), 1.0),
        (ROWS, 2.5),
        (replace(BATCH, mode="forward", residual=False), 1.5),
        (replace(BATCH, residual=False), 4.0),
        (BATCH, 5.0),
        (replace(BATCH, layout="channels-last"), 5.0),
        (replace(BATCH, mode="inference"), 1.5),
    ],
)
def test_least_copies(case, copies):
    assert least_copies(case) == copies


def test_channels_last_batches_cost_what_the_cpu_counts_uncached():
    for case in DEVICE_HEADLINE:
        if case.layout == "channels-last" or case.operator != "batch_norm":
            assert least_copies(case) == least(case).uncached


def test_a_kernel_at_its_least_traffic_has_the_copy_s_bandwidth():
    copy = 4e-5
    assert fraction(ROWS, least_copies(ROWS) * copy, copy) == pytest.approx(1.0)
    assert fraction(BATCH, 2 * least_copies(BATCH) * copy, copy) == pytest.approx(0.5)


def test_a_copy_reads_and_writes():
    assert copy_bandwidth(ROWS, copy_seconds=1.0) == 2 * 2 * 8192 * 4096


def test_the_sets_are_several_times_the_cache():
    cache = 50 * 2**20
    for case in DEVICE_HEADLINE:
        count = sets_needed(case, cache)
        x_bytes = copy_bandwidth(case, 1.0) / 2
        assert count * x_bytes >= 8 * cache
        assert count == 2 or (count - 1) * x_bytes < 8 * cache
    assert sets_needed(ROWS, 0) == 2
