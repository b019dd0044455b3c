"""The hostile inputs are what their names say, in every dtype that is to hold them."""

import pytest
import torch

from benchmarks.accuracy import accuracy_cases
from benchmarks.hostile import KINDS, SERVES
from benchmarks.inputs import random_inputs, with_x

CASES = list(accuracy_cases())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_every_dtype_holds_its_inputs(case):
    noise = torch.randn(case.shape, generator=torch.Generator().manual_seed(1))
    plain = random_inputs(case)
    xs = {kind: with_x(case, plain, KINDS[kind](noise, case)).x.detach() for kind in SERVES[case.dtype]}
    assert all(x.isfinite().all() for x in xs.values())
    constant = xs["constant"].reshape(case.axes.view).double()
    assert constant.std(case.axes.reduce).max() == 0
    assert constant.unique().numel() > 1
    shifted = xs["mean/deviation 1e2"].double()
    assert 90 < shifted.mean() / shifted.std() < 110
