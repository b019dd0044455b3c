"""What the two-sample test promises: its level, its power, and honest figures in every proportion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from tables import normal, rows, text

from normwright.errors import DataError
from normwright.shift import two_sample
from normwright.shift.chance import permutation_p
from normwright.shift.columns import coded
from normwright.shift.two_sample import LEAST, separated


def found_in(first, second, *, seed=0):
    return separated(coded(first, second), seed=seed)[0]


class Means:
    """Scores by the difference of the sets' means: a classifier that is linear, and quick."""

    def __init__(self, codes, current, categories, seed):
        self.towards = codes[current].mean(0) - codes[~current].mean(0)

    def scores(self, codes):
        return codes @ self.towards


def test_false_alarms_at_the_level(monkeypatch):
    """In 400 repetitions; permuting the answers of all folds fails here, see the next test."""
    monkeypatch.setattr(two_sample, "Classifier", Means)
    alarms = sum(
        found_in(normal(40, seed=2 * seed), normal(40, seed=2 * seed + 1), seed=seed).p_value <= 0.05
        for seed in range(400)
    )
    low, high = binom.ppf([0.001, 0.999], 400, 0.05)
    assert low <= alarms <= high


def test_out_of_fold_answers_must_not_be_permuted(monkeypatch):
    """The reason for the chain: it would raise an alarm about twice as often as said."""
    monkeypatch.setattr(two_sample, "Classifier", Means)
    alarms = 0
    for seed in range(400):
        data = coded(normal(40, seed=2 * seed), normal(40, seed=2 * seed + 1))
        _, parts = separated(data, seed=seed)
        answered = np.concatenate([part.rows for part in parts])
        # Ranks within each fold, as folds have no common scale.
        scores = np.concatenate([np.argsort(np.argsort(part.scores)) for part in parts]).astype(float)
        alarms += permutation_p(scores, data.current[answered], np.random.default_rng(seed)) <= 0.05
    assert alarms > binom.ppf(0.999, 400, 0.05)


def test_false_alarms_of_the_trees():
    alarms = sum(
        found_in(normal(30, seed=2 * seed), normal(30, seed=2 * seed + 1), seed=seed).p_value <= 0.05
        for seed in range(20)
    )
    assert alarms <= binom.ppf(0.999, 20, 0.05)


@pytest.mark.parametrize(("first", "second"), [(LEAST, LEAST), (LEAST, 400), (400, LEAST)])
def test_few_rows_that_differ_altogether(first, second):
    found = found_in(normal(first, seed=0), normal(second, seed=1, shift=20.0))
    assert found.p_value < 1e-3
    assert found.auc > 0.9
    assert found.mcc_interval[0] > 0.2


@pytest.mark.parametrize("few", [0, 1, LEAST - 1])
def test_too_few_rows_are_refused(few):
    with pytest.raises(DataError, match=f"at least {max(LEAST if few else 1, 1)} row|at least one row"):
        found_in(normal(few, seed=0), normal(100, seed=1))


def test_sizes_do_not_decide_the_figures():
    even = found_in(normal(400, seed=0), normal(400, seed=1, shift=2.0))
    uneven = found_in(normal(2000, seed=0), normal(60, seed=1, shift=2.0))
    # Two normals at distance 2: t = u = Φ(1) = 0.84, MCC 0.68, AUC Φ(√2) = 0.92 at best.
    for found in (even, uneven):
        assert 0.45 < found.mcc < 0.8
        assert 0.8 < found.auc < 0.97
        assert found.p_value < 1e-3


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_same_rows_in_both_sets_are_no_shift(share):
    """Copies in other folds would teach the wrong answer, and give an AUC far below one half."""
    first = normal(300, seed=0)
    second = first.taken(np.random.default_rng(0).permutation(300)[: int(300 * share)])
    found = found_in(first, second)
    assert found.p_value > 0.05
    assert found.auc_interval[0] <= 0.5 <= found.auc_interval[1]
    assert found.mcc_interval[0] <= 0.0 <= found.mcc_interval[1]


def test_a_shift_of_shares_in_a_table_of_few_values():
    """All rows have copies in both sets; only how many differs."""
    generator = np.random.default_rng(0)
    sets = [
        rows(x=text(*generator.choice(["a", "b", "c"], 300, p=p))) for p in ([0.6, 0.3, 0.1], [0.3, 0.3, 0.4])
    ]
    assert found_in(*sets).p_value < 1e-3


def test_a_shift_in_what_is_missing():
    values = np.random.default_rng(0).normal(size=(2, 300))
    values[1, :100] = np.nan
    assert found_in(rows(x=values[0]), rows(x=values[1])).p_value < 1e-3


def test_a_shift_that_no_column_shows_alone():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 600))
    first, second = rows(x=x[:300], y=x[:300] + 0.1 * y[:300]), rows(x=x[300:], y=-x[300:] + 0.1 * y[300:])
    assert found_in(first, second).mcc > 0.5


def test_the_same_seed_gives_the_same_figures():
    sets = normal(60, seed=0), normal(60, seed=1, shift=0.5)
    assert found_in(*sets, seed=3) == found_in(*sets, seed=3)
    assert found_in(*sets, seed=3) != found_in(*sets, seed=4)


def test_the_order_of_the_sets_decides_nothing():
    there = found_in(normal(200, seed=0), normal(200, seed=1, shift=1.0))
    back = found_in(normal(200, seed=1, shift=1.0), normal(200, seed=0))
    # Other folds and other trees: as far apart as two draws of an AUC with a deviation of 0.03 can be.
    assert abs(there.auc - back.auc) < 4 * 2**0.5 * 0.03
    assert max(there.p_value, back.p_value) < 1e-3


def test_global_random_states_are_left_alone():
    before = np.random.get_state()[1].copy()
    found_in(normal(40, seed=0), normal(40, seed=1))
    assert np.array_equal(before, np.random.get_state()[1])
