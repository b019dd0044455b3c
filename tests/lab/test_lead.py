"""Who leads, and whether it is a win."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from normwright.lab.intervals import mean_interval
from normwright.lab.lead import Guessing, guessing, lead
from normwright.lab.records import Row

CHANCE = Guessing(0.1, 400)


def found(tests, *, seeds=3, chance=CHANCE):
    """Who leads among these test metrics, by normaliser and seed; a seed that is missing diverged."""
    rows = [row(norm, list(values.values()), seeds) for norm, values in tests.items()]
    return lead(rows, tests, chance)


def row(norm, values, seeds):
    test = mean_interval(values)
    return Row(norm, 32, 0.1 if values else None, test, test, 0, seeds, None, None, 0.0, 1.0, 1, 1, 0)


def summary(lead):
    """Who leads, and why it is no win."""
    return dataclasses.astuple(lead)[1:6]


def seeded(*values):
    return dict(enumerate(values))


def test_a_winner_is_told_from_every_other():
    clear = {
        "none": seeded(0.5, 0.52, 0.51),
        "batch": seeded(0.8, 0.81, 0.83),
        "layer": seeded(0.6, 0.6, 0.62),
    }
    assert summary(found(clear)) == ("batch", "batch", (), (), "")


def test_seeds_that_move_together_are_told_apart_though_their_intervals_overlap():
    paired = {"none": seeded(0.50, 0.70, 0.90), "batch": seeded(0.53, 0.72, 0.93)}
    assert found(paired).winner == "batch"
    assert found({**paired, "none": seeded(0.70, 0.50, 0.90)}).winner is None


def test_what_is_not_shown_to_be_lower_is_level():
    near = {
        "none": seeded(0.5, 0.5, 0.51),
        "batch": seeded(0.8, 0.85, 0.9),
        "layer": seeded(0.84, 0.8, 0.86),
    }
    assert summary(found(near)) == ("batch", None, ("layer",), (), "level")


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_seeds_name_no_winner(count):
    few = {"none": seeded(*[0.2] * count), "batch": seeded(*[0.9] * count)}
    assert (found(few, seeds=count).highest, found(few, seeds=count).winner) == ("batch", None)
    assert found(few, seeds=count).doubt == "seeds"


def test_chance_ends_where_luck_on_the_test_set_does():
    # 0.1 + 1.96·√(0.1·0.9/400) = 0.1294
    below = {"none": seeded(0.1, 0.1, 0.1), "batch": seeded(0.128, 0.129, 0.130)}
    above = {"none": seeded(0.1, 0.1, 0.1), "batch": seeded(0.129, 0.130, 0.131)}
    assert (found(below).winner, found(below).doubt) == (None, "chance")
    assert found(above).winner == "batch"
    # Of a user's metric, what guessing gets is not known.
    assert found(below, chance=None).winner == "batch"


def test_chance_ends_at_an_accuracy_of_one():
    # 0.98 + 1.96·√(0.98·0.02/100) = 1.007
    assert Guessing(0.98, 100).most == 1.0


def test_guessing_gets_the_commonest_class():
    assert guessing(torch.tensor([3, 1, 3, 0, 3])) == Guessing(0.6, 5)


def test_of_one_normaliser_there_is_no_winner():
    assert found({"batch": seeded(0.9, 0.91, 0.92)}).doubt == "alone"
    # The only one that did not diverge has won.
    assert found({"none": {}, "batch": seeded(0.9, 0.91, 0.92)}).winner == "batch"


def test_where_every_run_diverged_nobody_leads():
    assert summary(found({"none": {}, "batch": {}})) == (None, None, (), (), "diverged")


@pytest.mark.parametrize("over_seeds", [(3, 3, 3), (3, 3, 2), (2, 3, 3), (2, 2, 3)])
def test_a_lead_of_three_samples_is_luck_of_the_test_set_whatever_its_spread(over_seeds):
    # d > √(1.96²·d(1 − d)/n) where d > 1.96²/(n + 1.96²): 3.8 of 359 samples.
    assert samples_more(over_seeds) == ("none",)


@pytest.mark.parametrize("over_seeds", [(4, 4, 4), (30, 30, 30), (29, 30, 31)])
def test_a_lead_of_four_samples_or_more_can_be_told_whatever_its_spread(over_seeds):
    assert samples_more(over_seeds) == ()


def test_all_right_against_all_wrong_leaves_nothing_to_luck():
    # |d|(1 − |d|) = 0; 1.96·√(1/3) would be above 1.
    assert found(
        {"none": seeded(0.0, 0.0, 0.0), "batch": seeded(1.0, 1.0, 1.0)}, chance=Guessing(0.1, 3)
    ).winner


def samples_more(over_seeds):
    """What is level where the best has so many of 359 test samples more, by seed."""
    few = {"none": seeded(*[300 / 359] * 3), "batch": seeded(*[(300 + more) / 359 for more in over_seeds])}
    return found(few, chance=Guessing(0.1, 359)).level


def test_the_luck_of_seeds_and_test_set_add_up():
    # d = 0.06 with h = t(0.975, 2)·0.02/√3 = 0.0497; of 100 samples √(1.96²·0.06·0.94/100) = 0.0465.
    tests = {"none": seeded(0.5, 0.5, 0.5), "batch": seeded(0.54, 0.56, 0.58)}
    assert found(tests, chance=Guessing(0.1, 100)).level == ("none",)
    # Of 300, 0.0269: together 0.0565.
    assert found(tests, chance=Guessing(0.1, 300)).winner == "batch"


def test_of_a_users_metric_an_interval_without_width_above_zero_is_above_zero():
    clear = {"none": seeded(*[0.5] * 5), "batch": seeded(*[1.0] * 5)}
    assert found(clear, seeds=5, chance=None).winner == "batch"


def test_metrics_that_are_equal_but_for_rounding_are_level():
    near = {"none": seeded(*[0.3] * 3), "batch": seeded(*[0.1 + 0.2] * 3)}
    assert found(near, chance=None).level == ("none",)


def test_equal_truth_seldom_names_a_winner():
    rng = np.random.default_rng(0)
    draws, normalisers, seeds, samples = 1000, 2, 3, 359
    right = rng.binomial(samples, 0.97, (draws, normalisers, seeds)) / samples
    names = ("none", "batch")
    winners = sum(
        found(
            {norm: seeded(*values) for norm, values in zip(names, draw, strict=True)},
            chance=Guessing(0.1, samples),
        ).winner
        is not None
        for draw in right
    )
    # 5 %, and three deviations of a count of 1,000 draws.
    assert winners / draws < 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


def test_one_that_got_more_in_fewer_seeds_leaves_no_winner():
    more = {"none": seeded(0.8, 0.81, 0.82, 0.8), "batch": seeded(0.9, 0.91, 0.92)}
    assert summary(found(more, seeds=4)) == ("none", None, (), ("batch",), "unfinished")
    # That the best is within chance would be false.
    by_chance = {"none": seeded(0.1, 0.1, 0.1, 0.1), "batch": seeded(0.9, 0.91, 0.92)}
    assert found(by_chance, seeds=4).doubt == "unfinished"
    # In the seeds that both finished it got less: it is told, though its mean is higher.
    harder = {"none": seeded(0.8, 0.81, 0.82, 0.2), "batch": seeded(0.7, 0.71, 0.72)}
    assert found(harder, seeds=4).winner == "none"


def test_one_that_got_as_much_in_fewer_seeds_is_level():
    near = {"none": seeded(0.8, 0.81, 0.82, 0.83), "batch": seeded(0.81, 0.8, 0.82)}
    assert summary(found(near, seeds=4)) == ("none", None, ("batch",), (), "level")


def test_two_seeds_in_common_tell_nothing():
    two = {"none": seeded(0.8, 0.81, 0.8), "batch": seeded(0.2, 0.21)}
    assert summary(found(two)) == ("none", None, (), ("batch",), "unfinished")
    apart = {"none": seeded(0.8, 0.81, 0.8), "batch": {3: 0.7, 4: 0.7}}
    assert found(apart, seeds=5).unfinished == ("batch",)
    three = {"none": seeded(0.8, 0.81, 0.8, 0.8), "batch": seeded(0.2, 0.21, 0.2)}
    assert found(three, seeds=4).winner == "none"


def test_one_that_finished_in_fewer_than_half_of_the_seeds_has_lost():
    assert found({"none": seeded(0.8, 0.81, 0.8), "batch": seeded(0.9)}).winner == "none"
    five = seeded(0.8, 0.81, 0.8, 0.82, 0.8)
    assert found({"none": five, "batch": seeded(0.9, 0.91)}, seeds=5).winner == "none"
    # Half of them is not fewer than half.
    four = seeded(0.8, 0.81, 0.8, 0.82)
    assert found({"none": four, "batch": seeded(0.9, 0.91)}, seeds=4).doubt == "unfinished"


def answered(*more, samples=359):
    """Answers of each seed: the first 300 samples right, and so many more."""
    return {seed: np.arange(samples) < 300 + count for seed, count in enumerate(more)}


def test_answers_count_where_both_have_them_in_every_seed_they_share():
    right = {"none": answered(0, 0, 0), "batch": answered(5, 5, 5)}
    tests = {norm: {seed: own.mean() for seed, own in seeds.items()} for norm, seeds in right.items()}
    rows = [row(norm, list(values.values()), 3) for norm, values in tests.items()]
    chance = Guessing(0.1, 359)
    whole = lead(rows, tests, chance, answers=right)
    # By the accuracies alone five samples are told, by the answers they are not.
    assert (whole.winner, whole.by_totals, whole.enough_seeds) == (None, (), None)
    assert whole.enough_samples > 359
    for mixed in ({}, {"batch": right["batch"]}, {**right, "none": dict(list(right["none"].items())[:2])}):
        old = lead(rows, tests, chance, answers=mixed)
        assert (old.winner, old.by_totals) == ("batch", ("none",))
    assert lead(rows, tests, None).by_totals == ()


def test_what_is_enough_is_enough_for_every_one_that_is_level():
    right = {"none": answered(3, 3, 3), "layer": answered(1, 1, 1), "batch": answered(5, 5, 5)}
    tests = {norm: {seed: own.mean() for seed, own in seeds.items()} for norm, seeds in right.items()}
    rows = [row(norm, list(values.values()), 3) for norm, values in tests.items()]
    found = lead(rows, tests, Guessing(0.1, 359), answers=right)
    pair = lead(rows[::2], tests, Guessing(0.1, 359), answers=right)
    assert found.level == ("none", "layer")
    assert found.enough_samples == pair.enough_samples
