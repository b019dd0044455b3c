"""The rule of the verdict: what must hold of it whatever the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normwright.lab.book.claim import Prediction
from normwright.lab.book.verdict import interval_of, judge, leaning, together

VERDICTS = ("refuted", "not supported", "supported")
MEASURES = st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=9)
RATIOS = st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=9)


def predicts(limit=1.0, *, most=False, ratio=False):
    return Prediction("key", "says", "unit", **{"at_most" if most else "at_least": limit}, ratio=ratio)


@given(MEASURES, st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_a_lower_limit_is_never_harder_to_reach(values, limit, less):
    ranks = [VERDICTS.index(judge(predicts(at), values)) for at in (limit, limit - less)]
    assert ranks == sorted(ranks)


@given(MEASURES, st.integers(-1000, 1000))
def test_turning_every_sign_turns_at_least_into_at_most(values, limit):
    turned = [-value for value in values]
    assert judge(predicts(limit), values) == judge(predicts(-limit, most=True), turned)


@given(MEASURES, st.floats(-1e6, 1e6))
def test_what_is_supported_as_more_is_refuted_as_less(values, limit):
    more, less = judge(predicts(limit), values), judge(predicts(limit, most=True), values)
    interval = interval_of(predicts(limit), values)
    if limit not in (
        interval.low,
        interval.high,
    ):  # an end at the limit is on both sides
        assert VERDICTS.index(more) == 2 - VERDICTS.index(less)


@given(MEASURES, st.floats(-1e6, 1e6), st.randoms())
def test_the_order_of_seeds_says_nothing(values, limit, chance):
    shuffled = sorted(values, key=lambda _: chance.random())
    before, after = (interval_of(predicts(limit), v) for v in (values, shuffled))
    assert after.mean == pytest.approx(before.mean, abs=1e-9 * (1 + max(map(abs, values))))


@given(RATIOS)
def test_a_ratio_turned_over_has_the_interval_turned_over(values):
    ours = interval_of(predicts(ratio=True), values)
    turned = interval_of(predicts(ratio=True), [1 / value for value in values])
    assert math.log(turned.mean) == pytest.approx(-math.log(ours.mean), abs=1e-9)
    assert math.log2(turned.low) == pytest.approx(-math.log2(ours.high), rel=1e-6, abs=1e-6)


@given(MEASURES, st.floats(-1e6, 1e6), st.booleans())
def test_a_seed_that_could_not_be_measured_leaves_it_open(values, limit, most):
    for missing in (math.nan, math.inf):
        assert judge(predicts(limit, most=most), [*values, missing]) == "not supported"


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_ratio_that_is_none_counts_as_not_measured(value):
    prediction = predicts(ratio=True)
    assert judge(prediction, [2.0, 2.0, 2.0, 2.0, 2.0, value]) == "not supported"
    assert interval_of(prediction, [2.0, 2.0, value]).count == 2
    assert interval_of(prediction, [value]) is None


@given(MEASURES, st.floats(-1e6, 1e6), st.booleans(), st.sampled_from(("at least", "at most")))
def test_a_bound_takes_one_verdict_away_and_gives_none(values, limit, most, bound):
    prediction = predicts(limit, most=most)
    plain, bounded = judge(prediction, values), judge(prediction, values, [bound])
    towards = bound == ("at most" if most else "at least")
    assert bounded == ("not supported" if plain == ("refuted" if towards else "supported") else plain)


@given(MEASURES, st.floats(-1e6, 1e6), st.booleans())
def test_bounds_of_both_kinds_leave_it_open(values, limit, most):
    assert judge(predicts(limit, most=most), values, ["at least", "at most", ""]) == "not supported"


@given(MEASURES, st.floats(-1e6, 1e6), st.lists(st.floats(0, 1e6), min_size=9, max_size=9))
def test_no_lower_bound_refutes_what_the_truth_could_support(values, limit, more):
    """The truths lie above the bounds, by as much as is drawn."""
    truths = [value + added for value, added in zip(values, more, strict=False)]
    said = judge(predicts(limit), values, ["at least"])
    assert said != "refuted"
    assert said != "supported" or interval_of(predicts(), truths).mean >= limit


def test_fewer_than_five_seeds_give_no_verdict_but_a_leaning():
    assert judge(predicts(), [2.0, 2.1, 2.2, 2.0]) == "no verdict"
    assert leaning(predicts(), [2.0, 2.1, 2.2, 2.0]) == "supported"
    assert leaning(predicts(), [2.0]) == leaning(predicts(), []) == "not supported"


def test_an_interval_that_touches_the_limit_is_on_the_predicted_side():
    assert judge(predicts(1.0), [1.0] * 5) == judge(predicts(1.0, most=True), [1.0] * 5) == "supported"


def test_the_interval_is_students():
    # t(0.975, 4) = 2.7764 (any table); mean 3, s = √2.5, s/√5 = √0.5
    interval = interval_of(predicts(), [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (interval.low, interval.high) == (
        pytest.approx(3 - 2.7764 * 0.5**0.5, abs=1e-4),
        pytest.approx(3 + 2.7764 * 0.5**0.5, abs=1e-4),
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("supported", "supported"), "supported"),
        (("supported", "not supported"), "not supported"),
        (("not supported", "refuted"), "refuted"),
        (("refuted", "no verdict"), "no verdict"),
    ],
)
def test_a_claim_is_supported_where_all_predictions_are(verdicts, expected):
    assert together(verdicts) == together(verdicts[::-1]) == expected
