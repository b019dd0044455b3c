"""Folds are nearly even, keep copies together where they are few, and do not look at the sets."""

from __future__ import annotations

import numpy as np
import pytest

from normwright.shift.folds import copies, dealt


def keys_of(*values):
    return np.array(values, dtype=np.uint64)


@pytest.mark.parametrize("rows", [40, 41, 1003])
def test_folds_are_even(rows):
    fold = dealt(np.arange(rows, dtype=np.uint64), 5, np.random.default_rng(0))
    counts = np.bincount(fold, minlength=5)
    assert counts.sum() == rows
    assert counts.max() - counts.min() <= 1


def test_few_copies_stay_together():
    keys = np.repeat(np.arange(100, dtype=np.uint64), 4)
    fold = dealt(keys, 5, np.random.default_rng(0)).reshape(100, 4)
    assert (fold == fold[:, :1]).all()
    assert len(np.unique(fold)) == 5


def test_many_copies_are_dealt_one_by_one():
    keys = np.repeat(np.arange(2, dtype=np.uint64), 50)
    fold = dealt(keys, 5, np.random.default_rng(0))
    assert all(len(np.unique(part)) == 5 for part in np.split(fold, 2))
    assert np.bincount(fold).tolist() == [20] * 5


def test_every_row_may_come_into_every_fold():
    keys = np.arange(10, dtype=np.uint64)
    seen = np.array([dealt(keys, 5, np.random.default_rng(seed)) for seed in range(200)])
    shares = np.array([(seen == fold).mean(0) for fold in range(5)])
    assert abs(shares - 0.2).max() < 4 * (0.2 * 0.8 / 200) ** 0.5  # four standard errors


def test_copies_counts_rows_of_the_current_set_that_the_reference_holds():
    keys = keys_of(1, 2, 3, 3, 4, 4, 2)
    current = np.array([0, 0, 0, 1, 1, 1, 1], dtype=bool)
    assert copies(keys, current, 5) == 2  # one copy of 3, one of 2; 4 is in the current set alone
    assert copies(np.zeros(20, dtype=np.uint64), np.arange(20) > 9, 5) == 0
