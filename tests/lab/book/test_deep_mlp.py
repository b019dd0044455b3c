"""How often the recipes of races are evaluated, on Fashion-MNIST's 60,000 samples."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from normwright.lab.book.deep_mlp import watched_mlp, watched_steps
from normwright.lab.claims.fewer_steps import _lenet
from normwright.lab.training import _evaluated_steps

HERE = str(Path(__file__).parent.parent / "claims")

if HERE not in sys.path:
    sys.path.append(HERE)

from written_bench import WrittenBench, written  # noqa: E402  # found by the line above


def spacing(recipe):
    """Training steps in all, and from one evaluation to the next."""
    samples = round(60_000 * (1 - recipe.data.validation))
    per_epoch = math.ceil(samples / recipe.training.batch_size)
    steps = min(recipe.training.epochs * per_epoch, recipe.training.max_steps or math.inf)
    evaluated = sorted(_evaluated_steps(recipe.training, steps, per_epoch))
    return steps, round(steps / len(evaluated))


@pytest.mark.parametrize(
    ("quick", "norm", "activation", "expected"),
    [
        (False, "none", "sigmoid", (10800, 60)),
        (True, "none", "sigmoid", (1800, 50)),
        (False, "batch", "sigmoid", (900, 10)),
        (True, "none", "relu", (300, 10)),
    ],
)
def test_the_mlp_is_evaluated_as_often_as_it_says(quick, norm, activation, expected):
    bench = WrittenBench(lambda recipe: written(), quick=quick)
    assert spacing(watched_mlp(bench, norm, activation)) == expected
    assert watched_steps(bench) <= expected[0]


@pytest.mark.parametrize(
    ("quick", "steps"), [(False, {"none": 3000, "batch": 900}), (True, {"none": 900, "batch": 150})]
)
def test_lenet_is_evaluated_as_often_as_it_says(quick, steps):
    bench = WrittenBench(lambda recipe: written(), quick=quick)
    assert spacing(_lenet(bench, "none")) == (steps["none"], 50 if quick else 51)
    assert spacing(_lenet(bench, "batch")) == (steps["batch"], 10)
