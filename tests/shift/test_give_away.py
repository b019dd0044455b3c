"""What gives a difference away is named, and what does not is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from tables import normal, rows

from normwright.shift import two_sample
from normwright.shift.columns import Rows, coded
from normwright.shift.give_away import element_names, give_aways
from normwright.shift.two_sample import separated


def told(first, second, *, seed=0):
    data = coded(first, second)
    return give_aways(data, separated(data, seed=seed)[1], first.shape, seed=seed)


def images(values):
    """(N, C, H, W) as rows."""
    flat = values.reshape(len(values), -1).T
    return Rows("images", dict(zip(element_names(values.shape[1:]), flat, strict=True)), values.shape[1:])


def test_the_column_that_moved_comes_first():
    losses = told(normal(300, 6, seed=0), normal(300, 6, seed=1, shift=1.5))
    assert losses[0].group.name == "c0"
    assert losses[0].fall > 0.2
    assert sum(loss.fall for loss in losses[1:]) < 0.1 * losses[0].fall


class Means:
    """Scores by the difference of the sets' means, in which every column has its part; quick."""

    def __init__(self, codes, current, categories, seed):
        self.towards = codes[current].mean(0) - codes[~current].mean(0)

    def scores(self, codes):
        return codes @ self.towards


def test_columns_that_do_not_differ_are_named_in_one_list_of_twenty(monkeypatch):
    """By two standard errors over five folds, in five of these eight."""
    monkeypatch.setattr(two_sample, "Classifier", Means)
    lists = [told(normal(60, 16, seed=2 * s), normal(60, 16, seed=2 * s + 1, shift=2.0)) for s in range(8)]
    names = [[loss.group.name for loss in losses] for losses in lists]
    assert all(found[0] == "c0" for found in names)
    assert sum(len(found) > 1 for found in names) <= binom.ppf(0.999, 8, 0.05)


@pytest.mark.parametrize("sizes", [(6000, 6000), (6000, 100), (100, 6000)])
def test_many_rows_of_a_set_do_not_hide_the_other(sizes):
    first, second = (normal(count, 2, seed=seed, shift=2.0 * seed) for seed, count in enumerate(sizes))
    losses = told(first, second)
    assert losses[0].group.name == "c0"
    assert losses[0].fall > 0.2


def test_a_column_of_many_is_found_in_its_run():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2, 130, 200))
    values[1, 77] += 2.0
    first, second = (rows(**{f"c{place}": v for place, v in enumerate(part)}) for part in values)
    assert told(first, second)[0].group.name == "c77"


def test_a_square_of_pixels_is_named_by_row_and_column():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2, 200, 2, 14, 14))
    values[1, :, :, 4:6, 8:10] += 1.0
    first, second = map(images, values)
    losses = told(first, second)
    assert losses[0].group.name == "pixel[4:6,8:10]"
    assert len(losses[0].group.places) == 2 * 2 * 2  # of both channels


def test_a_label_beside_pixels_stands_alone():
    generator = np.random.default_rng(0)
    sets = []
    for classes in (["0", "1"], ["1", "2"]):
        image = images(generator.normal(size=(100, 1, 8, 8)))
        label = generator.choice(np.array(classes, dtype=object), 100)
        sets.append(Rows("both", {**image.columns, "label": label}, image.shape))
    assert told(*sets)[0].group.name == "label"
