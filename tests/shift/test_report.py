"""Verdict, table and advice of a report."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tables import normal, rows, text

from normwright.errors import OptionError
from normwright.shift.advice import advice
from normwright.shift.columns import Rows, coded
from normwright.shift.describe import described
from normwright.shift.judge import check_options, judged
from normwright.shift.report import Feature, LayerShift, NetworkShift, Recovery, verdict_of

SETTINGS = {"level": 0.05, "alarm": 0.2, "seed": 0, "on_stage": lambda sentence: None}


@pytest.mark.parametrize(
    ("mcc", "p_value", "wanted"),
    [(0.2, 0.05, "shift"), (0.19, 0.05, "small shift"), (0.2, 0.051, "undecided"), (0.19, 0.051, "no shift")],
)
def test_the_verdict_takes_effect_and_chance(mcc, p_value, wanted):
    assert verdict_of(mcc, p_value, alarm=0.2, level=0.05) == wanted


@pytest.mark.parametrize(
    ("level", "alarm", "seed"), [(0, 0.2, 0), (1, 0.2, 0), (0.05, 0, 0), (0.05, 0.2, -1)]
)
def test_options_out_of_range(level, alarm, seed):
    with pytest.raises(OptionError):
        check_options(level, alarm, seed)


def test_a_shift_names_the_feature_and_what_to_do():
    report = judged(normal(200, seed=0), normal(200, seed=1, shift=2.0, name="current"), **SETTINGS)
    assert report.verdict == "shift"
    assert report.features[0].name == "c0"
    table = str(report.table())
    assert f"MCC {report.mcc:.2f} ≥ 0.2" in table
    assert "without c0" in table
    assert table.splitlines()[-1].startswith("Next: find out why c0 changed (")
    assert dataclasses.asdict(report)["features"][0]["name"] == "c0"


def test_without_a_difference_no_feature_is_named():
    report = judged(normal(200, seed=0), normal(200, seed=1, name="current"), **SETTINGS)
    assert (report.verdict, report.features) == ("no shift", ())
    assert report.advice.startswith("Next: nothing")


def test_copies_are_told_of():
    first = normal(200, seed=0)
    report = judged(first, dataclasses.replace(first, name="current"), **SETTINGS)
    assert report.shared_rows == 200
    assert any("200 of 200 rows of current are in reference, too" in note for note in report.notes)


def network(gain, interval, *, moved=True):
    layer = LayerShift("bn", "BatchNorm2d", 1.0, 2.0, 0.5, 1.0, 0.001, moved)
    return NetworkShift(
        (layer,), "bn" if moved else None, Recovery(0.9, 0.5, 0.5 + gain, gain, interval), (10, 10)
    )


@pytest.mark.parametrize(
    ("gain", "interval", "words"),
    [
        (0.3, (0.25, 0.35), "run adapt on the current set: accuracy 50.0% would become 80.0%"),
        (-0.1, (-0.15, -0.05), "do not adapt, which would do harm"),
        (0.0, (-0.02, 0.02), "adapt would not help"),
    ],
)
def test_advice_on_adapting(gain, interval, words):
    said = advice("shift", (Feature("x", 0.1, 0.01, "1", "2"),), network(gain, interval), auc=0.6)
    assert words in said
    assert "inside the network the shift begins at bn" in said


def test_a_network_changes_no_advice_where_nothing_shifted():
    assert advice("no shift", (), network(0.0, (-0.02, 0.02), moved=False), auc=0.5).startswith(
        "Next: nothing"
    )


def test_undecided_asks_for_rows():
    assert "collect more rows" in advice("undecided", (), None, auc=0.6)


@pytest.mark.parametrize(
    ("falls", "words"),
    [
        ((0.3,), "find out why x0 changed (1 to 2), then test without it: it tells most of the difference"),
        ((0.001,), "and look at the other columns, too: without it they still tell most"),
        ((0.001, 0.0005), "what x0, x1 have in common: no single one tells most"),
        ((), "no column alone is missed by more than chance explains"),
    ],
)
def test_most_of_the_difference_is_most_of_what_the_classifier_knows(falls, words):
    """And not of what the named columns tell: columns that say the same stand in for each other."""
    features = [Feature(f"x{place}", fall, 0.0, "1", "2") for place, fall in enumerate(falls)]
    assert words in advice("shift", features, None, auc=1.0)


def test_columns_of_several_kinds_are_described_by_kind():
    """Neighbours of a wide table are shuffled together, whatever they hold."""
    days = np.array(["2020-01-03", "2020-01-05"], "M8[us]")
    first = rows(a=[1.0, 3.0], t=text("u", "v"), d=days, b=[5.0, 7.0], s=text("p", "p"))
    second = rows(a=[2.0, 2.0], t=text("u", "v"), d=days[:1], b=[2.0, 2.0], s=text("q", "p"))
    assert described(["a", "t", "d", "b", "s"], first, second) == (
        "4 ± 2.24; s 'p' 100.0%; 2020-01-03 to 2020-01-05",
        "2 ± 0; s 'p' 50.0%; 2020-01-03 to 2020-01-03",
    )


def test_columns_are_described_in_words():
    first, second = rows(x=[1.0, 3.0, np.nan, np.inf]), rows(x=[np.nan] * 4)
    assert described(["x"], first, second) == ("2 ± 1, 25.0% missing", "no finite value, 100.0% missing")
    colours = rows(x=text("a", "a", "b", None)), rows(x=text("a", "b", "b", "b"))
    assert described(["x"], *colours) == ("'b' 25.0%, 25.0% missing", "'b' 75.0%")
    days = (
        rows(x=np.array(["2020-01-03", "NaT"], dtype="M8[us]")),
        rows(x=np.array(["2021-01-03"], dtype="M8[us]")),
    )
    assert described(["x"], *days) == ("2020-01-03 to 2020-01-03, 50.0% missing", "2021-01-03 to 2021-01-03")


LACKING = {
    "numbers": (np.array([1.0, 3.0]), "2 ± 1"),
    "dates": (np.array(["2020-01-03", "2020-01-05"], "M8[us]"), "2020-01-03 to 2020-01-05"),
    "durations": (np.array([2_000_000, 4_000_000], "m8[us]"), "3 ± 1 s"),
    "texts": (np.array(["a", "a"], dtype=object), "'a' 100.0%"),
}
EMPTY = (np.full(2, np.nan), np.full(2, None, dtype=object), np.full(2, "NaT", "M8[us]"))


@pytest.mark.parametrize("empty", EMPTY, ids=["NaN", "None", "NaT"])
@pytest.mark.parametrize("kind", LACKING)
def test_a_column_without_a_value_is_of_the_others_kind(kind, empty):
    values, said = LACKING[kind]
    full, bare = Rows("full", {"x": values}), Rows("bare", {"x": empty})
    for first, second in ((full, bare), (bare, full)):
        told = dict(zip((first.name, second.name), described(["x"], first, second), strict=True))
        assert told["full"] == said
        assert told["bare"].endswith("100.0% missing")
        codes = coded(first, second).codes[:, 0]
        missing = codes == 1 if kind == "texts" else np.isnan(codes)  # beside a lone text it is another
        assert missing.sum() == 2


def test_numbers_near_the_end_of_their_range_have_a_mean():
    rows = Rows("a", {"x": np.array([1e308, -1e308, 1e308])})
    assert described(["x"], rows, rows)[0] == "3.333e+307 ± 9.43e+307"
