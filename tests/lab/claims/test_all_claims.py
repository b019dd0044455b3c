"""What every claim must say, whoever wrote it, and that the book holds all of them."""

from __future__ import annotations

import json

import pytest

from normwright.lab.book.claim import Trial, all_claims
from normwright.lab.book.record import Cost, make_record, read_records
from normwright.lab.book.verdict import LEAST_SEEDS, SUPPORTED

CLAIMS = list(all_claims().values())
each_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.number}-{claim.name}")

# What each number claims, by words of its sentence: the numbers are cited, and stay.
NUMBERS = {
    1: "fewer training steps",
    2: "learning rates",
    3: "dependence",
    4: "deep networks",
    5: "weight and bias",
    6: "dropout",
    7: "small batches",
    8: "before the activation",
    9: "shallow",
    10: "distributions",
    11: "enlarges gradients",
    12: "near the loss",
    13: "non-saturating",
    14: "xavier",
    15: "weight decay",
    16: "moving average",
    17: "group norm",
    18: "time step",
    19: "weight norm",
    20: "local response",
    21: "samples per second",
    22: "folding",
    23: "reshuffl",
    24: "large initial weights",
    25: "a shift between",
}


def test_the_book_holds_all_claims_each_under_its_number():
    assert [claim.number for claim in CLAIMS] == list(NUMBERS)
    assert len({claim.sentence for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert NUMBERS[claim.number] in claim.sentence.lower()


def test_what_the_literature_disputes_is_marked():
    assert 10 in [claim.number for claim in CLAIMS if claim.contested]


@each_claim
def test_it_says_what_a_reader_must_know(claim):
    for text in (claim.sentence, claim.recipe, claim.measure, claim.conditions):
        assert text.endswith(".")
        assert not text[0].islower()
        assert "  " not in text
    assert claim.references
    assert all(any(c.isdigit() for c in text) for text in claim.references)
    for paragraph in claim.practice.values():
        assert 2 <= paragraph.count(". ") + 1 <= 4
        assert paragraph.endswith(".")
    assert len(set(claim.practice.values())) == len(claim.practice)
    assert claim.plot.title
    assert claim.plot.x
    assert claim.plot.y


@each_claim
def test_each_prediction_is_one_inequality_in_words(claim):
    keys = [prediction.key for prediction in claim.predictions]
    assert keys
    assert len(set(keys)) == len(keys)
    assert len({prediction.says for prediction in claim.predictions}) == len(keys)
    for prediction in claim.predictions:
        words = "at least" if prediction.at_least is not None else "at most"
        assert f"{words} {prediction.limit:g}" in prediction.says
        assert prediction.unit
        assert not prediction.ratio or prediction.limit > 0


@each_claim
def test_its_record_is_whole_and_comes_back_as_it_was(claim, tmp_path):
    """Of trials that find just what is predicted."""
    found = {prediction.key: prediction.limit for prediction in claim.predictions}
    record = make_record(
        claim,
        [Trial(found)] * LEAST_SEEDS,
        Cost(1, 1.0, 1.0),
        quick=False,
        machine="a machine",
        command="run",
    )
    assert record.verdict == SUPPORTED
    assert record.practice == claim.practice[SUPPORTED]
    assert [outcome.key for outcome in record.outcomes] == list(found)
    record.save(tmp_path)
    assert read_records(tmp_path) == [record]
    values = json.loads((tmp_path / record.file_name).read_text())
    assert [name for name, value in values.items() if value in (None, "")] == []
