"""From runs to rows, verdicts and curves, on results written by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from normwright.errors import OptionError
from normwright.lab.curves import POINTS, make_gradients, make_learning, make_ribbons
from normwright.lab.grid import Grid, make_base
from normwright.lab.intervals import mean_interval, ratio_interval
from normwright.lab.judge import choose, edge_of, make_rate_map, make_row, steps_to
from normwright.lab.lead import Guessing, lead
from normwright.lab.recipe import NORMS
from normwright.lab.records import Lead, Row
from normwright.lab.run import LayerTrace, RunResult
from normwright.lab.verdict import verdict

STEPS = np.array([10, 20, 30])


def result(*validation, diverged=False, loss=None, clock="processor"):
    rng = np.random.default_rng(0)
    trace = LayerTrace(
        steps=np.array([0, 29]),
        places=("a", "b"),
        input=rng.normal(size=(2, 2, 3)),
        output=rng.normal(size=(2, 2, 3)),
        layers=("w",),
        gradient=np.ones((2, 1)),
        update=np.ones((2, 1)),
    )
    return RunResult(
        diverged=diverged,
        loss=np.linspace(2, 1, 30) if loss is None else np.asarray(loss),
        evaluation_steps=STEPS[: len(validation)],
        validation=np.array(validation),
        milliseconds=2.0,
        peak_bytes=1000,
        places=2,
        left_out=1,
        trace=trace,
        clock=clock,
    )


@pytest.fixture
def grid():
    base = make_base("mlp", "digits", norm="none", batch_size=8, lr=1.0)
    return Grid(base, ("none", "batch"), (8,), (0.1, 1.0), 2)


@pytest.fixture
def results(grid):
    """Without a normaliser 0.1 does better; batch norm is better at 1.0, but one seed diverges there."""
    table = {
        ("none", 0.1): [result(0.2, 0.4, 0.6), result(0.3, 0.5, 0.7)],
        ("none", 1.0): [result(0.1, 0.1, 0.1), result(0.1, 0.1, 0.1)],
        ("batch", 0.1): [result(0.5, 0.7, 0.8), result(0.5, 0.6, 0.8)],
        ("batch", 1.0): [result(0.9, 0.9, 0.9), result(0.9, diverged=True)],
    }
    return {
        run.hash: one
        for (norm, lr), many in table.items()
        for run, one in zip(grid.seeds_of(norm, 8, lr), many, strict=True)
    }


def row_of(grid, results, norm, target=0.6, **tests):
    none, other = choose(grid, results)
    test = tests or {0: 0.5, 1: 0.7}
    choice = none if norm == "none" else other
    return make_row(grid, choice, none, results, target, lambda run: test[run.training.seed])


def test_the_rate_is_chosen_by_validation_and_by_how_many_seeds_last(grid, results):
    none, batch = choose(grid, results)
    assert (none.lr, batch.lr) == (0.1, 0.1)
    assert [run.training.seed for run in batch.runs] == [0, 1]


def test_where_every_run_diverged_no_rate_is_chosen(grid, results):
    dead = {name: dataclasses.replace(one, diverged=True) for name, one in results.items()}
    assert [choice.lr for choice in choose(grid, dead)] == [None, None]
    row = row_of(grid, dead, "batch")
    assert (row.test, row.validation, row.steps, row.diverged) == (None, None, None, 1.0)
    text = told([row], {})
    assert text == "Every run diverged: try smaller learning rates."


def test_a_time_by_another_clock_does_not_count(grid, results):
    none, _ = choose(grid, results)
    old = dataclasses.replace(results[none.runs[0].hash], milliseconds=9.0, clock="passed")
    mixed = results | {none.runs[0].hash: old}
    assert row_of(grid, mixed, "none").milliseconds == 2.0
    assert row_of(grid, dict.fromkeys(results, old), "none").milliseconds is None


def test_a_row_counts_what_it_says(grid, results):
    row = row_of(grid, results, "batch")
    assert row.validation.mean == pytest.approx(0.8)
    assert row.test.mean == pytest.approx(0.6)
    assert row.steps.mean == 20
    assert row.reached == 2
    # Without a normaliser 30 and 30 steps, with it 20 and 20.
    assert row.ratio.mean == pytest.approx(1.5)
    assert row.diverged == 0.25
    assert (row.milliseconds, row.peak_bytes, row.places, row.left_out) == (2.0, 1000, 2, 1)


def test_a_target_that_one_seed_missed_has_no_mean(grid, results):
    row = row_of(grid, results, "none", target=0.65)
    assert (row.reached, row.steps, row.ratio) == (1, None, None)


def test_an_accuracys_interval_stays_an_accuracy(grid, results):
    row = row_of(grid, results, "batch")
    assert (row.test.low, row.test.high) == (0.0, 1.0)  # 0.6 ± 1.27 by Student's t, cut off


def test_steps_to_a_target():
    assert [steps_to(result(0.1, 0.5, 0.4), target) for target in (0.1, 0.5, 0.51)] == [10, 20, None]


def test_intervals_are_students():
    values = [0.3, 0.5, 0.9, 0.2]
    interval = mean_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert mean_interval([]) is None
    assert mean_interval([4.0]).low is None


def test_a_ratios_interval_is_the_geometric_one():
    interval = ratio_interval([8.0, 2.0], [1.0, 1.0])
    assert interval.mean == pytest.approx(4.0)
    assert interval.low * interval.high == pytest.approx(16.0)
    huge = ratio_interval([1e300, 1.0], [1e-300, 1.0])
    assert huge.high == math.inf
    assert ratio_interval([2.0], [1.0]).low is None


def test_the_rate_map_marks_what_diverged(grid, results):
    rates = make_rate_map(grid, "batch", results)
    assert rates.metric == ((pytest.approx(0.8), 0.9),)
    assert rates.diverged == ((0, 1),)


# Steps to a target of 0.6 are 30 without a normaliser and 20 with batch norm, in every seed.
STEPS_TO = {"none": dict.fromkeys(range(3), 30.0), "batch": dict.fromkeys(range(3), 20.0)}

TEN_CLASSES = Guessing(0.1, 400)


def told(rows, tests, *, steps=STEPS_TO, edges=None):
    """The verdict on rows, and on the test metrics by normaliser and seed that they are the means of."""
    found = lead(rows, tests, TEN_CLASSES)
    edges = edges or {}
    return verdict(rows, found, steps, target=0.6, metric="accuracy", chance=TEN_CLASSES, edges=edges)


def verdict_of(grid, results, tests, seeds=3, **more):
    rows = [
        dataclasses.replace(row_of(grid, results, norm), test=mean_interval(tests[norm]), seeds=seeds)
        for norm in ("none", "batch")
    ]
    return told(rows, {norm: dict(enumerate(values)) for norm, values in tests.items()}, **more)


CLEAR = {"none": [0.60, 0.61, 0.60], "batch": [0.80, 0.81, 0.82]}


def test_the_verdict_names_the_best_and_what_is_level_with_it(grid, results):
    assert verdict_of(grid, results, CLEAR) == (
        "Batch norm does best: test accuracy 81.0 % at learning rate 0.1, against 60.3 % without a "
        "normaliser. Compared with the network without a normaliser by accuracy alone, for which test "
        "samples each run gets right is not kept: luck of the test set is counted too low. Batch norm "
        "reached 60.0 % on the validation split soonest, in 20 steps, 1.5 times fewer than without a "
        "normaliser. Diverged at some learning rates: batch norm (25% of its runs)."
    )
    level = verdict_of(grid, results, {"none": [0.60, 0.81, 0.7], "batch": [0.80, 0.75, 0.7]})
    assert level.startswith(
        "No winner: 3 seeds cannot tell batch norm, the highest, from the network without a normaliser. "
        "Batch norm got test accuracy 75.0 % at learning rate 0.1, against 70.3 % without a normaliser. More "
        "seeds, or more test samples, could tell. Compared with"
    )
    assert "does best" not in level


@pytest.mark.parametrize("norm", NORMS)
def test_the_verdict_has_a_name_for_every_normaliser(grid, results, norm):
    row = dataclasses.replace(row_of(grid, results, "batch"), norm=norm, diverged=0.5)
    text = told([row], {norm: {0: 0.5, 1: 0.7}}, steps={norm: STEPS_TO["batch"]}, edges={norm: "largest"})
    name = text.partition("only ")[2].partition(" was compared")[0]
    assert name
    assert text.lower().count(name.lower()) == 4


def test_few_seeds_name_no_winner(grid, results):
    single = verdict_of(grid, results, {"none": [0.6], "batch": [0.8]}, seeds=1)
    assert single.startswith(
        "One seed: no interval, so no winner is named; take three seeds or more. The highest was batch norm: "
        "test accuracy 80.0 % at learning rate 0.1, against 60.0 % without a normaliser. Batch norm took the "
        "fewest steps to 60.0 % on the validation split, 20, by one seed, against 30 without a normaliser."
    )
    two = verdict_of(grid, results, {"none": [0.6, 0.7], "batch": [0.8, 0.9]}, seeds=2)
    assert two.startswith("Two seeds: an interval too wide to name a winner by; take three seeds or more.")
    some = verdict_of(grid, results, {"none": [0.6], "batch": [0.8, 0.9]}, seeds=4)
    assert some.startswith(
        "No winner: at most 2 of 4 seeds of each normaliser finished, too few to tell. The highest"
    )


def test_the_verdict_rounds_an_accuracy_as_the_table_does(grid, results):
    text = verdict_of(grid, results, {"none": [0.377, 0.396], "batch": [0.8, 0.9]}, seeds=2)
    assert f"{(0.377 + 0.396) / 2:.3f}" == "0.387"
    assert "against 38.7 % without a normaliser" in text


def test_within_chance_there_is_no_winner(grid, results):
    # 0.1 + 1.96·√(0.1·0.9/400) = 0.1294
    text = verdict_of(grid, results, {"none": [0.1, 0.1, 0.1], "batch": [0.12, 0.125, 0.13]})
    assert text.startswith(
        "No winner: the best is within chance. The highest was batch norm: test accuracy 12.5 % at learning "
        "rate 0.1, against 10.0 % without a normaliser; guessing gets 10.0 %, by luck up to 12.9 %, on these "
        "400 test samples."
    )
    assert "does best" not in text


def test_those_that_are_told_from_the_highest_are_named(grid, results):
    tests = {"none": [0.3, 0.31, 0.32], "batch": [0.8, 0.9, 0.81], "layer": [0.81, 0.79, 0.8]}
    batch = row_of(grid, results, "batch")
    rows = [
        dataclasses.replace(batch, norm=norm, seeds=3, test=mean_interval(values))
        for norm, values in tests.items()
    ]
    seeds = {norm: dict(enumerate(values)) for norm, values in tests.items()}
    text = told(rows, seeds, steps=dict.fromkeys(tests, STEPS_TO["batch"]))
    assert "cannot tell batch norm, the highest, from layer norm, though they do from the network" in text


def test_one_that_got_more_before_it_diverged_is_told(grid, results):
    text = verdict_of(grid, results, {"none": [0.8, 0.81, 0.8], "batch": [0.9]})
    assert text.startswith(
        "The network without a normaliser does best: test accuracy 80.3 % at learning rate 0.1. Batch norm "
    )
    assert "Batch norm got more, 90.0 %, but only 1 of its 3 seeds finished." in text
    fewer = verdict_of(grid, results, {"none": [0.1], "batch": [0.9, 0.8, 0.85]}, seeds=4)
    assert fewer.startswith("Batch norm does best")
    assert "Only 3 of its 4 seeds finished; the others diverged." in fewer


def test_one_that_got_more_in_fewer_seeds_is_told_as_such(grid, results):
    tests = {"none": [0.6, 0.61, 0.6, 0.62, 0.6], "batch": [0.99, 0.98, 0.985, 0.99]}
    text = verdict_of(grid, results, tests, seeds=5)
    assert text.startswith(
        "No winner: the network without a normaliser finished in 5 of 5 seeds; batch norm got more, 98.6 %, "
        "but diverged in 1 of 5. The network without a normaliser got test accuracy 60.6 % at learning rate "
        "0.1. Batch norm reached"
    )
    assert "highest" not in text
    assert text.count("got more") == 1


def test_too_few_seeds_in_common_are_told(grid, results):
    text = verdict_of(grid, results, {"none": [0.3, 0.31], "batch": [0.8, 0.81, 0.8]})
    assert text.startswith(
        "No winner: batch norm finished in 3 of 3 seeds; the network without a normaliser in 2 of 3, too few "
        "of them in common to tell the two apart. Batch norm got test accuracy 80.3 %"
    )


def test_the_best_of_too_few_seeds_is_not_called_the_highest_where_it_is_not(grid, results):
    text = verdict_of(grid, results, {"none": [0.5, 0.51], "batch": [0.9]}, seeds=4)
    assert text.startswith(
        "No winner: at most 2 of 4 seeds of each normaliser finished, too few to tell. Most seeds finished "
        "of the network without a normaliser: test accuracy 50.5 % at learning rate 0.1. Batch norm got "
        "more, 90.0 %, but only 1"
    )
    chance = verdict_of(grid, results, {"none": [0.9], "batch": [0.1, 0.1, 0.1]})
    assert chance.startswith("No winner: batch norm is within chance. Most seeds finished of batch norm: ")
    assert "the highest" not in chance.lower()


def test_those_that_are_equal_are_told_to_be(grid, results):
    text = verdict_of(grid, results, {"none": [0.8, 0.7, 0.6], "batch": [0.7, 0.6, 0.8]})
    assert text.startswith(
        "No winner: the network without a normaliser and batch norm are equal, the highest. The network"
    )
    guess = verdict_of(grid, results, {"none": [0.1, 0.1, 0.1], "batch": [0.1, 0.1, 0.1]})
    assert (
        "The highest was the network without a normaliser, equal to batch norm: test accuracy 10.0 %" in guess
    )


def test_one_below_those_that_are_equal_is_told_too(grid, results):
    batch = row_of(grid, results, "batch")
    tests = {"batch": [0.8, 0.7, 0.6], "layer": [0.7, 0.6, 0.8], "rms": [0.6, 0.7, 0.7], "group": [0.1] * 3}
    rows = [
        dataclasses.replace(batch, norm=norm, seeds=3, test=mean_interval(values))
        for norm, values in tests.items()
    ]
    seeds = {norm: dict(enumerate(values)) for norm, values in tests.items()}
    assert told(rows, seeds, steps=dict.fromkeys(tests, STEPS_TO["batch"])).startswith(
        "No winner: batch norm and layer norm are equal, the highest; 3 seeds cannot tell batch norm from "
        "RMS norm either, though they do from group norm."
    )


def test_by_luck_no_more_than_all_are_right(grid, results):
    rows = [dataclasses.replace(row_of(grid, results, "batch"), test=mean_interval([0.98] * 3), seeds=3)]
    chance, tests = Guessing(0.98, 100), {"batch": dict.fromkeys(range(3), 0.98)}
    text = verdict(
        rows, lead(rows, tests, chance), STEPS_TO, target=0.6, metric="accuracy", chance=chance, edges={}
    )
    assert "guessing gets 98.0 %, by luck up to 100.0 %" in text


def test_more_test_samples_are_asked_for_only_where_they_count(grid, results):
    tests = {"none": [0.60, 0.81, 0.7], "batch": [0.80, 0.75, 0.7]}
    rows = [
        dataclasses.replace(row_of(grid, results, norm), test=mean_interval(values), seeds=3)
        for norm, values in tests.items()
    ]
    seeds = {norm: dict(enumerate(values)) for norm, values in tests.items()}
    found = lead(rows, seeds, None)
    text = verdict(rows, found, STEPS_TO, target=0.6, metric="m.py:f1", chance=None, edges={})
    # d² = 0.00218 and s² = 0.0185; t²·s²/n is 2.032²·0.0185/35 = 0.00219, and 2.030²·0.0185/36 = 0.00212.
    assert " About 36 seeds could, if the lead stays as it is. " in text


def test_what_is_soonest_within_the_noise_is_not_called_so(grid, results):
    steps = {"none": {0: 30.0, 1: 30.0, 2: 30.0}, "batch": {0: 29.0, 1: 10.0, 2: 31.0}}
    text = verdict_of(grid, results, CLEAR, steps=steps)
    assert (
        "Batch norm took the fewest steps to 60.0 % on the validation split, 20, but 3 seeds cannot tell "
        "that from the network without a normaliser." in text
    )
    assert "soonest" not in text


def test_the_verdict_says_where_the_best_rate_may_lie_outside(grid, results):
    bare = "the network without a normaliser"
    ending = f"tried is the largest for batch norm and the smallest for {bare}: rates beyond may"
    assert ending in verdict_of(grid, results, CLEAR, edges={"none": "smallest", "batch": "largest"})
    assert "rates beyond" not in verdict_of(grid, results, CLEAR)


def test_an_edge_is_one_only_where_the_rate_is_truly_better(grid, results):
    none, batch = choose(grid, results)
    assert edge_of(grid, none, results) == "smallest"
    level = {name: result(0.1, 0.1, 0.1) for name in results}
    assert edge_of(grid, none, level) is None
    one_rate = dataclasses.replace(grid, lrs=(0.1,))
    assert edge_of(one_rate, none, results) is None
    inner = dataclasses.replace(grid, lrs=(0.1, 1.0, 0.01))
    worse = results | {
        run.hash: result(0.1, 0.1, 0.1) for norm in grid.norms for run in inner.seeds_of(norm, 8, 0.01)
    }
    assert edge_of(inner, batch, worse) is None


def test_the_verdict_when_none_wins(grid, results):
    text = verdict_of(grid, results, {"none": [0.80, 0.81, 0.82], "batch": [0.60, 0.61, 0.60]})
    assert text.startswith(
        "The network without a normaliser does best: test accuracy 81.0 % at learning rate 0.1. Compared with"
    )


def test_a_long_loss_is_averaged_down(grid, results):
    choice = choose(grid, results)[0]
    loss = np.arange(1000.0)
    results |= {run.hash: result(0.1, 0.2, 0.3, loss=loss + 10 * i) for i, run in enumerate(choice.runs)}
    band = make_learning(choice, results).loss
    assert len(band.steps) <= POINTS
    assert band.steps[-1] == 1000
    assert band.low[0] == pytest.approx(loss[:5].mean())
    assert band.high[0] - band.low[0] == pytest.approx(10.0)
    assert band.mean[0] == pytest.approx(loss[:5].mean() + 5)


def test_a_seed_that_diverged_counts_while_it_lasted(grid, results):
    choice = choose(grid, results)[0]
    first, second = choice.runs
    results |= {
        first.hash: result(0.1, 0.2, 0.3),
        second.hash: result(0.5, diverged=True, loss=[1.0, np.nan]),
    }
    learning = make_learning(choice, results)
    assert learning.metric.steps == (10, 20, 30)
    assert learning.metric.high == (0.5, 0.2, 0.3)
    assert len(learning.loss.steps) == 30


@pytest.mark.parametrize("lasted", [150, 998])
def test_a_seed_that_diverged_counts_in_a_long_loss_while_it_lasted(grid, results, lasted):
    choice = choose(grid, results)[0]
    first, second = choice.runs
    results |= {
        first.hash: result(0.1, 0.2, 0.3, loss=np.ones(1000)),
        second.hash: result(diverged=True, loss=np.full(lasted, 3.0)),
    }
    band = make_learning(choice, results).loss
    both = lasted // 5  # means of five steps
    assert band.steps == tuple(range(5, 1001, 5))
    assert band.high == (3.0,) * both + (1.0,) * (200 - both)
    assert band.mean == (2.0,) * both + (1.0,) * (200 - both)


def test_ribbons_and_gradients_are_those_of_the_first_seed(grid, results):
    choice = choose(grid, results)[0]
    ribbons = make_ribbons(choice, results)
    trace = results[choice.runs[0].hash].trace
    assert [ribbon.layer for ribbon in ribbons] == ["a", "b"]
    assert ribbons[1].output[1] == tuple(trace.output[1, 1])
    (profile,) = make_gradients(choice, results)
    assert profile.steps == (0, 29)
    assert profile.gradient == ((1.0,), (1.0,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norms": ("bach",)}, "did you mean 'batch'"),
        ({"norms": ()}, "at least one of the norms"),
        ({"lrs": (0.1, 0.1)}, "0.1 came 2 times"),
        ({"lrs": (-0.1,)}, "lr must be above zero"),
        ({"batch_sizes": (0,)}, "batch_size must be at least 1"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"seeds": [0, 1]}, r"a whole number, but is \[0, 1\]"),
    ],
)
def test_a_grid_checks_itself(grid, changes, message):
    with pytest.raises(OptionError, match=message):
        dataclasses.replace(grid, **changes)


def test_an_option_that_no_recipe_has():
    with pytest.raises(OptionError, match="did you mean 'weight_decay'"):
        make_base("mlp", "digits", norm="none", batch_size=8, lr=1.0, weight_decy=0.1)
    with pytest.raises(OptionError, match="unknown option 'digest'"):
        make_base("mlp", "digits", norm="none", batch_size=8, lr=1.0, digest="x")


def enough(level=("none",), chance=TEN_CLASSES, other=0.79, **counts):
    """What the verdict says would tell those that are level."""
    row = Row("batch", 32, 0.1, *[mean_interval([0.8, 0.8, 0.8])] * 2, 0, 3, None, None, 0.0, 1.0, 1, 1, 0)
    rows = [row, *(dataclasses.replace(row, norm=norm, test=mean_interval([other] * 3)) for norm in level)]
    found = Lead(32, "batch", None, level, (), "level", **counts)
    text = verdict(rows, found, {}, target=0.6, metric="accuracy", chance=chance, edges={})
    after = text.partition(f"0.1, against {100 * other:.1f} % without a normaliser. ")[2]
    return after.partition(" Not one of them")[0]


def test_the_verdict_says_what_would_tell_and_which_is_the_limit():
    more = "about 2,400 test samples in place of 400"
    stays = "if the lead stays as it is"
    assert enough(enough_seeds=8, enough_samples=2345) == f"About 8 seeds could, or {more}, {stays}."
    assert enough(enough_seeds=8) == (
        f"The seeds are the limit: about 8 seeds could tell, {stays}; a larger test set alone could not."
    )
    assert enough(enough_samples=2345) == (
        f"The test set is the limit: {more} could tell, {stays}; more seeds alone could not."
    )
    assert enough() == "Only with both more seeds and more test samples could they be told apart."
    assert enough(enough_seeds=8, chance=None) == f"About 8 seeds could, {stays}."
    assert enough(chance=None) == "More seeds could tell."
    assert "if the leads stay as they are" in enough(("none", "layer"), enough_seeds=8)


def test_of_a_tie_no_number_is_said_and_no_limit():
    assert enough(other=0.8) == "More seeds, or more test samples, could tell."
    assert enough(other=0.8, chance=None, enough_seeds=2) == "More seeds could tell."


def test_the_network_without_a_normaliser_is_not_read_as_none_of_them(grid, results):
    steps = {"none": dict.fromkeys(range(3), 20.0), "batch": dict.fromkeys(range(3), 30.0)}
    tests = {"none": [0.80, 0.81, 0.82], "batch": [0.60, 0.61, 0.60]}
    text = verdict_of(grid, results, tests, steps=steps, edges={"none": "largest"})
    assert "no normaliser" not in text.lower()
