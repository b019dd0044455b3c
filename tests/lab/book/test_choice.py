"""What is kept of a chosen learning rate, and in which words it is told."""

from __future__ import annotations

import math

import pytest

from normwright.lab.book.bench import make, vary
from normwright.lab.book.choice import Choice, ChosenRate, chosen_rates
from normwright.lab.book.rate_words import rate, trend, tried

BASE = make("mlp", "digits", norm="batch", batch_size=2)


def choice(at, *scores, purpose="", **options):
    """Of rates 0.1, 1, 10, … by their scores; None for one at which every pilot run diverged."""
    by_rate = {
        10.0**k: (0, -math.inf) if score is None else (1, score) for k, score in enumerate(scores, start=-1)
    }
    return Choice(vary(BASE, lr=at, **options), by_rate, purpose)


@pytest.mark.parametrize(
    ("made", "edge", "direction"),
    [
        (choice(1.0, 0.5, 0.9, 0.7), "", ""),
        (choice(10.0, 0.5, 0.6, 0.7), "largest", "rising"),
        (choice(0.1, 0.9, 0.6, 0.7), "smallest", "rising"),
        (choice(0.1, 0.9, None, None), "smallest", "rising"),
        (choice(0.1, 0.9, 0.6, 0.895, 0.3), "smallest", "rising"),
        (choice(100.0, 0.3, 0.895, 0.6, 0.9), "largest", "rising"),
        (choice(10.0, 0.5, 0.695, 0.7), "largest", "level"),
        (choice(0.1, 0.1, 0.1, 0.1), "smallest", "alike"),
        (choice(1.0, 0.100, 0.104, 0.098), "", "alike"),
        (choice(0.1, None, None, None), "smallest", "alike"),
        (choice(0.1, 0.5, 0.5, None), "smallest", "level"),
        (choice(0.1, 0.5), "", ""),
    ],
)
def test_an_edge_is_told_and_whether_the_score_still_rises_there(made, edge, direction):
    assert (made.edge, made.trend) == (edge, direction)


def test_rates_need_not_come_in_order():
    made = Choice(vary(BASE, lr=0.1), {1.0: (1, 0.6), 0.1: (1, 0.9), 10.0: (1, 0.2)})
    assert (made.edge, made.trend) == ("smallest", "rising")
    assert chosen_rates([made])[0].tried == (0.1, 1.0, 10.0)


def test_choices_are_kept_once_under_names_that_tell_them_apart():
    twice = choice(1.0, 0.5, 0.9, 0.7)
    found = chosen_rates([twice, choice(10.0, 0.5, 0.6, 0.7, norm="none"), twice])
    assert found == (
        ChosenRate("batch norm", 1.0, (0.1, 1.0, 10.0), "", ""),
        ChosenRate("no normaliser", 10.0, (0.1, 1.0, 10.0), "largest", "rising"),
    )
    assert chosen_rates([]) == ()


def test_one_side_may_have_a_rate_for_each_purpose():
    found = chosen_rates(
        [choice(1.0, 0.5, 0.9, purpose="for speed"), choice(0.1, 0.9, 0.5, purpose="for accuracy")]
    )
    assert [(one.side, one.rate) for one in found] == [("for speed", 1.0), ("for accuracy", 0.1)]


def test_rates_in_words():
    rising, level, alike, within = (
        chosen_rates([made])[0]
        for made in (
            choice(0.1, 0.9, 0.6, 0.7),
            choice(10.0, 0.5, 0.695, 0.7),
            choice(0.1, 0.1, 0.1, 0.1),
            choice(1.0, 0.5, 0.9, 0.7),
        )
    )
    assert trend(rising) == "the smallest tried, and the score still rises there: a smaller one may be better"
    assert trend(level) == "the largest tried; the one beside it scores alike"
    assert trend(alike) == "all that were tried score alike: the choice is one of chance"
    assert trend(within) == ""
    assert tried(within) == "0.1, 1, 10"
    assert rate(1e-7) == "1e−07"
