"""MCC, AUC and their intervals against scikit-learn, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from normwright.shift.measures import auc_fall, auc_interval, auc_of, mcc_interval, mcc_of


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize("sizes", [(50, 50), (900, 30)])
def test_mcc_weighs_both_sets_the_same(generator, sizes):
    truth = np.repeat([False, True], sizes)
    answers = np.where(generator.random(len(truth)) < 0.3, ~truth, truth)
    weights = np.repeat(1 / np.array(sizes), sizes)
    found, kept = answers[truth].mean(), (~answers[~truth]).mean()
    wanted = matthews_corrcoef(truth, answers, sample_weight=weights)
    assert mcc_of(found, kept) == pytest.approx(wanted, abs=1e-9)  # it sums weights over all rows


def test_mcc_does_not_depend_on_the_base_rate():
    assert mcc_of(0.8, 0.7) == mcc_of(0.7, 0.8)
    assert mcc_of(1.0, 0.0) == mcc_of(0.0, 1.0) == 0.0
    assert mcc_of(1.0, 1.0) == 1.0
    assert mcc_of(0.0, 0.0) == -1.0


def test_auc_with_ties(generator):
    scores = generator.integers(0, 5, 200).astype(float)
    current = generator.random(200) < 0.2
    assert auc_of(scores, current) == pytest.approx(roc_auc_score(current, scores), abs=1e-12)


def test_the_fall_of_an_auc_and_how_it_varies(generator):
    """Over draws of the rows, of two scores that go together; ties count half."""
    falls = []
    for _ in range(600):
        current = np.arange(90) < 30
        one = generator.normal(size=90).round(1) + current
        other = one + generator.normal(size=90).round(1)
        falls.append(auc_fall(one, other, current))
    assert falls[-1][0] == pytest.approx(auc_of(one, current) - auc_of(other, current), abs=1e-12)
    found, said = np.var([fall for fall, _ in falls], ddof=1), np.mean([variance for _, variance in falls])
    # A variance of 600 draws is known to 6 %; the estimate of 30 rows is up to 1/30 too large.
    assert said == pytest.approx(found, rel=0.25)


def test_auc_interval_solves_newcombes_equation():
    auc, current, reference = 0.8, 100, 60
    m, n = current / 2, reference / 2
    for end in auc_interval(auc, current, reference):
        more = (m + n) / 2 - 1
        variance = end * (1 - end) * (1 + more * (1 - end) / (2 - end) + more * end / (1 + end)) / (m * n)
        assert (auc - end) ** 2 / variance == pytest.approx(1.959964**2, rel=1e-5)


@pytest.mark.parametrize("auc", [0.0, 0.5, 1.0])
def test_auc_interval_never_shrinks_to_a_point(auc):
    low, high = auc_interval(auc, 20, 20)
    assert 0 <= low <= auc <= high <= 1
    # Narrower it could not be if all pairs of half the rows were independent draws.
    assert high - low > 1 - 0.025 ** (1 / (10 * 10))


def test_intervals_mirror():
    low, high = auc_interval(0.9, 50, 80)
    assert auc_interval(1 - 0.9, 80, 50) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_mcc_interval_holds_the_truth(generator):
    # Of answers that are independent, half the rows would have done: it must hold more often than said.
    held = 0
    for _ in range(200):
        found, kept = generator.binomial(100, 0.7) / 100, generator.binomial(60, 0.6) / 60
        low, high = mcc_interval(found, kept, 100, 60, generator)
        held += low <= mcc_of(0.7, 0.6) <= high
    assert held >= 0.95 * 200


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mcc_interval_is_one_where_all_answers_agree(generator, share):
    low, high = mcc_interval(share, share, 20, 20, generator)
    assert high - low > 0.1


def test_narrower_with_more_rows(generator):
    widths = [np.diff(auc_interval(0.7, rows, rows))[0] for rows in (20, 200, 2000)]
    assert widths == sorted(widths, reverse=True)
