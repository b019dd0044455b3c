"""Records: a pure function of the trials, read back as they were written."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import pytest

from normwright.errors import StoreError
from normwright.lab.book import words
from normwright.lab.book.record import Cost, read_records

HERE = Path(__file__).parent

if str(HERE.parents[1] / "report") not in sys.path:
    sys.path.append(str(HERE.parents[1] / "report"))

from claims_sample import BETTER, FASTER, FLAT, RATES, book, extremes, record  # noqa: E402  # found by the line above


def test_records_are_read_as_they_were_saved(tmp_path):
    made = book() + extremes()
    for one in reversed(made):
        one.save(tmp_path)
    assert read_records(tmp_path) == made


def test_json_has_no_number_that_json_has_not(tmp_path):
    for one in book() + extremes():
        json.loads(one.to_json(), parse_constant=lambda name: pytest.fail(name))


def test_an_end_beyond_every_number_comes_back(tmp_path):
    made = extremes()[2]
    assert made.outcomes[0].effect.high == math.inf
    made.save(tmp_path)
    assert read_records(tmp_path)[0].outcomes[0].effect.high == math.inf


def test_one_seed_has_a_mean_and_no_interval(tmp_path):
    from normwright.lab.records import Interval

    one = record(1)
    outcome = dataclasses.replace(
        one.outcomes[0], effect=Interval(3.0, None, None, 1), values=(3.0,), bounds=("",)
    )
    one = dataclasses.replace(one, outcomes=(outcome,))
    one.save(tmp_path)
    assert read_records(tmp_path) == [one]
    assert words.effect(outcome) == "3 times"


def test_a_full_run_goes_before_a_quick_one(tmp_path):
    full, quick = record(1), record(1, quick=True)
    quick.save(tmp_path)
    assert read_records(tmp_path) == [quick]
    full.save(tmp_path)
    assert read_records(tmp_path) == [full]
    assert len(list(tmp_path.iterdir())) == 2


def test_there_may_be_none(tmp_path):
    assert read_records(tmp_path) == read_records(tmp_path / "nowhere") == []


def changed(**values):
    return json.dumps({**json.loads(record(1).to_json()), **values})


OUTCOME = json.loads(record(1).to_json())["outcomes"][0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        record(1).to_json()[:500],
        "[]",
        "3",
        "{}",
        changed(verdict="true"),
        changed(outcomes=[]),
        changed(outcomes=["a"]),
        changed(number="1"),
        changed(more=1),
        changed(plot=None),
        changed(lines=[{"name": "a"}]),
        changed(rates=[{"side": "a"}]),
        changed(outcomes=[{**OUTCOME, "bounds": ["", ""]}]),
        changed(outcomes=[{**OUTCOME, "bounds": ["about"] * 5}]),
    ],
)
def test_what_is_no_record_is_named(content, tmp_path):
    path = tmp_path / "01-a.json"
    path.write_text(content)
    with pytest.raises(StoreError, match=r"01-a\.json must be the record of a claim") as caught:
        read_records(tmp_path)
    assert "remove the file and run the claim again" in str(caught.value)


def test_the_lines_are_means_with_the_lowest_and_highest_seed():
    line = record(1).lines[0]
    # in `claims_sample`, seeds lie 0.01 apart: 0 to 4 below the first
    assert line.mean[0] == pytest.approx(line.high[0] - 0.02)
    assert line.low[0] == pytest.approx(line.high[0] - 0.04)
    gap = record(1).lines[2]
    assert (gap.mean[7], gap.low[7], gap.high[7]) == (None, None, None)
    assert record(3, categories=True).lines[0].x[0] == "batch 2"


def test_the_paragraph_is_that_of_the_verdict_or_of_the_leaning():
    refuted = {"gain": (0.0, 0.1, 0.0, 0.1, 0.05)}
    assert record(1, BETTER, values=refuted).practice == "Batch norm is no way to train faster here."
    assert (
        record(1, BETTER, values=refuted, quick=True).practice == record(1, BETTER, values=refuted).practice
    )


@pytest.mark.parametrize(
    ("prediction", "values", "expected"),
    [
        (FASTER, (4.0, 4.0, 4.0, 4.0, 4.0), "4 times (4 to 4)"),
        (FLAT, (math.nan,) * 5, "could not be measured"),
        (
            BETTER,
            (-2000.0, -2000.0, -2000.0, -2000.0, -2000.0),
            "−2,000 points of accuracy (−2,000 to −2,000)",
        ),
    ],
)
def test_effects_in_words(prediction, values, expected):
    assert words.effect(record(1, prediction, values={prediction.key: values}).outcomes[0]) == expected


def test_bounds_and_seeds_in_words():
    measured = {"gain": (1.0, math.nan, 2.0, 3.0, 1.0)}
    (outcome,) = record(1, BETTER, values=measured, bounds={"gain": "at least"}).outcomes
    assert outcome.bounds == ("at least", "", "at least", "at least", "at least")
    assert words.values(outcome) == "≥ 1, –, ≥ 2, ≥ 3, ≥ 1"
    assert words.effect(outcome).startswith("at least 1.75 points of accuracy (")
    assert words.bounds(outcome).startswith("In 4 of 5 seeds the true effect is at least the measure: ")
    assert "The interval is one of these measures, and need not hold the effect." in words.bounds(outcome)
    assert words.bounds(record(1).outcomes[0]) == ""


@pytest.mark.parametrize(
    ("prediction", "bounds", "said"),
    [
        (BETTER, ("at least",), "It can support the prediction, and cannot refute it."),
        (BETTER, ("at most",), "It can refute the prediction, and cannot support it."),
        (FLAT, ("at least",), "It can refute the prediction, and cannot support it."),
        (FLAT, ("at most",), "It can support the prediction, and cannot refute it."),
        (FLAT, ("at most", "at least"), "it can neither support the prediction nor refute it."),
    ],
)
def test_what_an_interval_over_bounds_can_say(prediction, bounds, said):
    (outcome,) = record(1, prediction).outcomes
    outcome = dataclasses.replace(outcome, bounds=(*bounds, *[""] * (5 - len(bounds))))
    assert words.bounds(outcome).endswith(said)
    for bound in bounds:
        assert f"n 1 of 5 seeds the true effect is {bound} the measure" in words.bounds(outcome)
    assert words.effect(outcome).startswith(f"{'about' if len(bounds) > 1 else bounds[0]} 3.02 points")


def test_lower_bounds_below_the_limit_refute_nothing():
    low = {"gain": (0.2, 0.3, 0.1, 0.2, 0.2)}
    assert record(1, BETTER, values=low).verdict == "refuted"
    assert record(1, BETTER, values=low, bounds={"gain": "at least"}).verdict == "not supported"
    assert record(1, BETTER, values=low, bounds={"gain": "at most"}).verdict == "refuted"
    assert record(1, FLAT, values={"spread": low["gain"]}).verdict == "supported"
    assert (
        record(1, FLAT, values={"spread": low["gain"]}, bounds={"spread": "at least"}).verdict
        == "not supported"
    )


def test_rates_are_kept_once_in_the_order_of_their_sides():
    twice = record(1, rates=RATES + RATES)
    assert twice.rates == RATES
    assert json.loads(twice.to_json())["rates"][0] == {
        "side": "batch norm",
        "rate": 0.1,
        "tried": [0.01, 0.1],
        "edge": "largest",
        "trend": "rising",
    }


def test_how_a_claim_stands_says_by_how_many_of_its_predictions():
    two = {"speed_up": (3.0, 3.4, 2.6, 3.2, 2.9), "gain": (0.1, 0.2, 0.15, 0.1, 0.2)}
    assert words.claim_standing(record(1, FASTER, BETTER, values=two)) == "refuted: 1 of 2 predictions"
    quick = record(1, FASTER, BETTER, values=two, quick=True)
    assert words.claim_standing(quick) == "leaning: refuted (1 of 2 predictions)"
    assert words.claim_standing(record(1, BETTER, values=two)) == "refuted"
    better = {**two, "gain": (3.0, 3.1, 2.9, 3.0, 3.2)}
    assert words.claim_standing(record(1, FASTER, BETTER, values=better)) == "supported"


def test_how_many_came_out_how():
    assert words.counted([]) == "No claim has been run."
    assert words.counted(book()) == (
        "Of 7 claims, 3 are supported, 2 are not supported, 2 are refuted. "
        "1 claim has no verdict yet, leaning: 0 supported, 1 not supported, 0 refuted."
    )
    assert words.heading(book()) == "verdict"
    assert words.heading([record(1, quick=True)]) == "leaning"
    assert words.cost(Cost(1, 0.1, 0.1)) == "1 run, 1 s on one core"
