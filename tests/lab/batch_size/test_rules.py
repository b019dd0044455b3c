"""The interval of a median, where rates level off, and which size is taken: on given numbers."""

from __future__ import annotations

import math

import pytest
import torch

from normwright.lab.batch_size.rules import Rate, knee, levelled, median_interval, rate_of, reason, undecided


def exact(**rates):
    """Rates that are known exactly, from n32=100.0."""
    return [Rate(int(name[1:]), value, value, value) for name, value in rates.items()]


def binomial_below(count, ranks):
    return sum(math.comb(count, rank) for rank in range(ranks)) / 2**count


@pytest.mark.parametrize("count", [6, 7, 10, 25, 101])
def test_the_interval_covers_at_least_95_of_100_and_no_narrower_one_does(count):
    _, low, high = median_interval([float(value) for value in range(1, count + 1)])
    rank = int(low)
    assert high == count + 1 - rank
    # The median is missed where fewer than `rank` of the values lie on one side of it.
    assert 2 * binomial_below(count, rank) <= 0.05 < 2 * binomial_below(count, rank + 1)


def test_the_interval_holds_the_median_of_a_skewed_distribution():
    draws = torch.empty(2000, 11).exponential_(generator=torch.Generator().manual_seed(0))
    covered = 0
    for row in draws.tolist():
        _, low, high = median_interval(row)
        covered += low <= math.log(2) <= high
    # Of 11, ranks 2 and 10: the median is missed with probability 2·12/2048; within 5 deviations of that.
    missed = 24 / 2048
    assert abs((2000 - covered) - 2000 * missed) < 5 * math.sqrt(2000 * missed)


def test_five_values_have_no_interval():
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 0.0, math.inf)
    assert rate_of(4, [1.0, 2.0]).high == math.inf


def test_one_slow_step_of_many_moves_no_rate():
    assert rate_of(8, [1.0] * 20).value == rate_of(8, [1.0] * 20 + [60.0]).value == 8.0


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"n1": 10.0, "n2": 20.0, "n4": 40.0}, False),
        ({"n1": 10.0, "n2": 10.2}, False),  # one size alone says nothing yet
        ({"n1": 10.0, "n2": 10.2, "n4": 10.4}, True),
        ({"n1": 10.0, "n2": 10.2, "n4": 10.4, "n8": 20.0}, False),
        ({"n1": 10.0, "n2": 10.4, "n4": 10.8, "n8": 11.2}, True),  # slower than 5 % a doubling is level
        ({"n1": 100.0, "n2": 60.0, "n4": 50.0}, True),
    ],
)
def test_levelled(rates, expected):
    assert levelled(exact(**rates), 0.05) is expected


def test_a_busy_moment_does_not_end_the_search_nor_keep_it_going():
    busy = [Rate(1, 10.0, 9.0, 11.0), Rate(2, 11.0, 5.0, 22.0), Rate(4, 15.0, 10.0, 40.0)]
    assert not levelled(busy, 0.05)
    lucky = [Rate(1, 5.0, 2.0, 90.0), Rate(2, 10.0, 5.0, 21.0), Rate(4, 20.0, 15.0, 39.0)]
    assert not levelled(lucky, 0.05)
    level = [Rate(1, 10.0, 2.0, 11.0), Rate(2, 5.0, 3.0, 11.1), Rate(4, 10.2, 5.0, 11.2)]
    assert levelled(level, 0.05)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"n1": 10.0, "n2": 20.0, "n4": 40.0}, 4),
        ({"n16": 80.0, "n32": 95.0, "n64": 100.0}, 32),
        ({"n16": 80.0, "n32": 94.9, "n64": 100.0}, 64),
        ({"n16": 96.0, "n32": 80.0, "n64": 100.0}, 16),
        ({"n16": 100.0, "n32": 90.0, "n64": 70.0}, 16),
        ({"n16": 100.0, "n32": 100.0}, 16),
    ],
)
def test_the_smallest_within_the_tolerance_is_taken(rates, expected):
    assert knee(exact(**rates), 0.05).batch_size == expected
    assert knee(list(reversed(exact(**rates))), 0.05).batch_size == expected


def test_what_the_intervals_leave_open():
    best = Rate(64, 100.0, 99.0, 101.0)
    assert undecided([Rate(16, 90.0, 89.0, 91.0), Rate(32, 97.0, 96.0, 98.0), best], 0.05) == ()
    assert undecided([Rate(16, 90.0, 85.0, 94.1), Rate(32, 97.0, 96.0, 98.0), best], 0.05) == (16,)
    assert undecided([Rate(16, 90.0, 89.0, 91.0), Rate(32, 97.0, 95.0, 98.0), best], 0.05) == (64,)


def test_the_sentence_says_what_was_compared_and_what_was_not_run():
    rates = exact(n16=80.0, n32=97.0, n64=100.0)
    assert reason(rates, 0.05, "") == (
        "it is the smallest whose samples per second come within 5 % of the most that were seen (97 % of "
        "those at 64)."
    )
    assert reason(rates[:2], 0.05, "memory was used up") == (
        "it has the most samples per second of all that were run, and no smaller one comes within 5 % of it; "
        "the rate may rise beyond it, but memory was used up."
    )
