"""Two normalisers, paired by seed and by test sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.winners import WORLDS, shares
from normwright.lab.paired import DEVIATIONS, Gap, gap_of_answers, gap_of_totals

BY_NAME = {world.name: world for world in WORLDS}
DRAWS = 400
# Three standard errors above 5 %, of so many draws.
BOUND = 0.05 + 3 * math.sqrt(0.05 * 0.95 / DRAWS)


def right(samples, count):
    """The first so many of the samples right."""
    return np.arange(samples) < count


def test_variances_are_those_of_two_way_analysis():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.random((4, 50)) < share for share in (0.8, 0.7))
    x = ours.astype(float) - theirs
    gap = gap_of_answers(list(ours), list(theirs))
    by_seed, by_sample = x.mean(1), x.mean(0)
    rest = sum((x[i, j] - by_seed[i] - by_sample[j] + x.mean()) ** 2 for i in range(4) for j in range(50)) / (
        3 * 49
    )
    assert gap.mean == pytest.approx(x.mean())
    assert gap.over_seeds == pytest.approx(stats.sem(by_seed) ** 2)
    assert gap.common == pytest.approx(rest / 200)
    own = max(stats.sem(by_sample) ** 2 - rest / 200, 0)
    assert gap.over_samples == pytest.approx(own + 2 / 50**2)
    t = stats.t.ppf(0.975, 3)
    assert gap.half == pytest.approx(math.sqrt(t**2 * gap.over_seeds + DEVIATIONS**2 * gap.over_samples))


@pytest.mark.parametrize(("more", "told"), [(5, False), (6, True)])
def test_five_samples_against_none_are_luck_where_all_seeds_repeat(more, told):
    gap = gap_of_answers([right(359, 300 + more)] * 3, [right(359, 300)] * 3)
    assert (gap.mean > gap.half) == told


def test_samples_that_all_seeds_miss_count_once():
    repeated = gap_of_answers([right(100, 90)] * 10, [~right(100, 20)] * 10)
    # 10 of 100 against 10 others: (s - d²)/n as McNemar has it, but for the divisor n - 1, and the two added.
    assert repeated.over_seeds == 0
    assert repeated.over_samples == pytest.approx((0.3 - 0.1**2) / 99 + 2 / 100**2)


def test_one_sample_tells_nothing():
    gap = gap_of_answers([right(1, 1)] * 3, [right(1, 0)] * 3)
    assert gap.mean < gap.half


@pytest.mark.parametrize("gap", [Gap(0.05, 3, 2e-4, 1e-4, 400, 1e-4), Gap(0.05, 3, 1e-3, 5e-4, 400, 9e-4)])
def test_enough_is_just_enough(gap):
    def told(seeds, samples):
        shrink = 400 / samples
        over_seeds = (gap.over_seeds - gap.common + gap.common * shrink) * gap.seeds / seeds
        added = 2 / 400**2
        over_samples = (gap.over_samples - added) * shrink + added * shrink**2
        return gap.mean > Gap(gap.mean, seeds, over_seeds, over_samples).half

    assert told(gap.enough_seeds, 400)
    assert not told(gap.enough_seeds - 1, 400)
    assert told(3, gap.enough_samples)
    assert not told(3, gap.enough_samples - 1)


def test_no_number_is_enough_where_the_other_is_the_limit():
    by_seeds = Gap(0.05, 3, 1e-2, 1e-4, 400, 0.0)
    assert by_seeds.enough_samples is None
    assert by_seeds.enough_seeds > 3
    by_samples = Gap(0.05, 3, 0.0, 1e-2, 400, 0.0)
    assert by_samples.enough_seeds is None
    assert by_samples.enough_samples > 400
    level = Gap(0.0, 3, 1e-4, 1e-4, 400, 0.0)
    assert (level.enough_seeds, level.enough_samples) == (None, None)
    assert gap_of_totals([0.1, 0.2, -0.1], 400).enough_samples is None


@pytest.mark.parametrize(("samples", "seeds"), [(100, 10), (359, 3)])
@pytest.mark.parametrize("world", BY_NAME)
def test_equal_truth_seldom_names_a_winner_wherever_the_errors_lie(world, samples, seeds):
    kept, _ = shares(BY_NAME[world], (0.9, 0.9), seeds=seeds, samples=samples, draws=DRAWS)
    assert kept < BOUND


def test_several_of_equal_truth_name_a_winner_no_more_often():
    assert shares(BY_NAME["repeating"], (0.9,) * 5, seeds=5, samples=359, draws=DRAWS)[0] < BOUND


def test_without_the_answers_errors_that_repeat_are_taken_for_a_win():
    assert shares(BY_NAME["repeating"], (0.9, 0.9), seeds=5, samples=359, draws=DRAWS)[1] > 0.3


@pytest.mark.parametrize("world", ["independent", "hard samples"])
@pytest.mark.parametrize("accuracies", [(0.92, 0.88), (0.94, 0.86)])
def test_the_answers_tell_no_less_where_the_accuracies_alone_were_honest(world, accuracies):
    kept, alone = shares(BY_NAME[world], accuracies, seeds=3, samples=359, draws=DRAWS, by="norm0")
    assert 0 < alone <= kept
