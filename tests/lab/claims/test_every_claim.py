"""What every claim's file must say."""

from __future__ import annotations

import pytest

from normwright.lab.book.claim import all_claims

CLAIMS = list(all_claims().values())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.number}-{claim.name}")
def test_it_says_what_a_reader_must_know(claim):
    for text in (claim.sentence, claim.recipe, claim.measure, claim.conditions):
        assert text.endswith(".")
        assert text[0].isupper()
        assert "  " not in text
    assert claim.references
    assert all(any(c.isdigit() for c in text) for text in claim.references)
    for paragraph in claim.practice.values():
        assert 2 <= paragraph.count(". ") + 1 <= 4
        assert paragraph.endswith(".")
    assert claim.plot.title
    assert claim.plot.x
    assert claim.plot.y


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.number}-{claim.name}")
def test_each_prediction_is_one_inequality_in_words(claim):
    keys = [prediction.key for prediction in claim.predictions]
    assert keys
    assert len(set(keys)) == len(keys)
    for prediction in claim.predictions:
        words = "at least" if prediction.at_least is not None else "at most"
        assert f"{words} {prediction.limit:g}" in prediction.says
        assert prediction.unit
        assert not prediction.ratio or prediction.limit > 0
