"""Two claims from their recipes to their records, in small."""

from __future__ import annotations

import math

import pytest

from normwright.lab.book import deep_mlp
from normwright.lab.book.bench import make
from normwright.lab.book.run import run_claims
from normwright.lab.claims import large_weights, larger_rates


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """On digits, with three layers of ten units."""
    monkeypatch.setattr(
        deep_mlp,
        "make",
        lambda network, data, **options: make(network, "digits", **{**options, "depth": 3, "width": 10}),
    )


def test_larger_rates(monkeypatch, tmp_path):
    monkeypatch.setattr(larger_rates, "DOUBLINGS", {"none": 8, "batch": 2})
    monkeypatch.setattr(larger_rates, "QUICK_STEPS", 20)
    (record,) = run_claims([2], quick=True, seeds=1, jobs=1, out=tmp_path)
    stable, useful = record.outcomes
    assert stable.bounds == (
        "at least",
    )  # both of its rates are stable with batch norm, and none is known that is not
    none, batch = record.lines
    assert (none.x, batch.x) == ((1 / 16, 1 / 4, 1.0, 4.0, 16.0), (1 / 16, 1 / 4))
    assert none.mean[-1] is None or none.mean[-1] < 20  # ReLUs without a normaliser do not bear such a rate
    assert all(value is not None for value in batch.mean)
    assert useful.values[0] is not None
    assert record.cost.runs == 5 + 2


def test_large_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(large_weights, "RATES", {"none": (1e-6,), "batch": (1.0,)})
    monkeypatch.setattr(large_weights, "QUICK_STEPS", 30)
    (record,) = run_claims([24], quick=True, seeds=1, jobs=1, out=tmp_path)
    effects = {outcome.key: outcome.effect.mean for outcome in record.outcomes}
    # The gradient comes through three layers of weights, each ten times as large; the answers are
    # surer, too, and their errors then cancel less over the batch.
    assert 1000 < effects["explodes"] < 10_000
    assert effects["held_by_batch"] < 2
    assert effects["held_by_layer"] < 2
    assert all(math.isfinite(value) for value in effects.values())
    assert record.practice == large_weights.CLAIM.practice[record.leaning]
