"""Who leads, and whether it is a win."""

from __future__ import annotations

import dataclasses

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


def seeded(*values):
    return dict(enumerate(values))


def test_a_winner_is_told_from_every_other():
    clear = {
        "none": seeded(0.5, 0.52, 0.51),
        "batch": seeded(0.8, 0.81, 0.83),
        "layer": seeded(0.6, 0.6, 0.62),
    }
    assert dataclasses.astuple(found(clear)) == (32, "batch", "batch", (), "")


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
    assert dataclasses.astuple(found(near)) == (32, "batch", None, ("layer",), "level")


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


def test_guessing_gets_the_commonest_class():
    assert guessing(torch.tensor([3, 1, 3, 0, 3])) == Guessing(0.6, 5)


def test_of_one_normaliser_there_is_no_winner():
    assert found({"batch": seeded(0.9, 0.91, 0.92)}).doubt == "alone"
    # The only one that did not diverge has won.
    assert found({"none": {}, "batch": seeded(0.9, 0.91, 0.92)}).winner == "batch"


def test_where_every_run_diverged_nobody_leads():
    assert dataclasses.astuple(found({"none": {}, "batch": {}})) == (32, None, None, (), "diverged")


def test_an_interval_without_width_needs_more_than_a_few_samples():
    # The same two of 64 test samples more, whichever the seed; 1.96/√64 = 0.245.
    few = {"none": seeded(0.5, 0.75, 0.5), "batch": seeded(0.53125, 0.78125, 0.53125)}
    assert found(few, chance=Guessing(0.1, 64)).level == ("none",)
    # Equal differences that are not so to the bit.
    rounded = {"none": seeded(0.8, 0.7, 0.6), "batch": seeded(0.9, 0.8, 0.7)}
    assert found(rounded, chance=Guessing(0.1, 64)).level == ("none",)
    many = {"none": seeded(0.1, 0.1, 0.1), "batch": seeded(0.9, 0.9, 0.9)}
    assert found(many, chance=Guessing(0.1, 64)).winner == "batch"
    assert found(many, chance=None).level == ("none",)


def test_one_that_got_more_in_fewer_seeds_leaves_no_winner():
    more = {"none": seeded(0.8, 0.81, 0.82, 0.8), "batch": seeded(0.9, 0.91, 0.92)}
    assert dataclasses.astuple(found(more, seeds=4)) == (32, "none", None, ("batch",), "level")


def test_one_of_which_a_single_seed_finished_has_lost():
    assert found({"none": seeded(0.8, 0.81, 0.8), "batch": seeded(0.9)}).winner == "none"
    # Two finished, but none of the seeds of the highest: nothing tells them apart.
    apart = {"none": seeded(0.8, 0.81, 0.8), "batch": {3: 0.7, 4: 0.7}}
    assert found(apart, seeds=5).level == ("batch",)
