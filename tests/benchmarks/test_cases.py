"""The cases: what they count, what their contenders compute, and what they leave behind."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks import contenders
from benchmarks.cases import shrunk
from benchmarks.headline import HEADLINE
from benchmarks.inputs import random_inputs
from benchmarks.least import least
from benchmarks.measure import errors_of
from benchmarks.sets import SETS


def test_least_copies_of_the_headline():
    assert [str(least(case)) for case in HEADLINE] == [
        *("1.0", "2.5", "2.5 to 4.0", "3.5", "3.5 to 5.0", "2.5", "2.5"),
        *("2.5", "2.5", "2.5", "2.5", "2.5", "2.5 to 4.0"),
    ]


SMALL = {
    replace(shrunk(case), dtype="float64", threads=1, source=""): None
    for cases in SETS.values()
    for case in cases()
}


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)
def test_contenders_compute_the_case(case):
    assert case.axes.shape == case.shape
    rivals = {"ours": contenders.ours(case), "eager": contenders.eager(case)}
    errors = errors_of(rivals, case, random_inputs(case))
    results = {"y"}
    if case.mode == "step":
        results |= {"dx", "dweight"} | ({"dbias"} if case.center else set())
        results |= {"dresidual"} if case.residual else set()
    assert set(errors) == results
    # A sum of m numbers in any order is good to m roundings; a gradient holds two such sums.
    bound = 4 * math.prod(case.shape)
    assert all(error.largest < bound for rivals in errors.values() for error in rivals.values())


@pytest.mark.parametrize("mode", ["forward", "step", "inference"])
def test_a_run_leaves_nothing_behind(mode):
    case = replace(shrunk(next(iter(HEADLINE))), mode=mode)
    inputs = random_inputs(case)
    task = contenders.task(contenders.eager(case), case, inputs)
    assert task() is None
    assert all(leaf.grad is None for leaf in inputs.leaves.values())


def test_inputs_have_the_layout_and_dtype():
    for case in SMALL:
        inputs = random_inputs(case)
        for tensor in (inputs.x, inputs.dy):
            assert tensor.dtype == torch.float64
            assert tensor.is_contiguous(memory_format=case.memory_format)
