"""float64 by PyTorch agrees with the reference, and errors in ulps with those on the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.cases import Case, shrunk
from benchmarks.device import ulps
from benchmarks.device.exact import KINK, exact
from benchmarks.device.measure import inputs_of
from benchmarks.exact import exact as reference
from benchmarks.inputs import random_inputs
from benchmarks.sets import SETS
from benchmarks.ulps import error
from normwright.reference import axes_of

SMALL = dict.fromkeys(
    replace(shrunk(case, 2**12), dtype="float64", source="", threads=1)
    for cases in SETS.values()
    for case in cases()
)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.label)
def test_exact_results_are_the_reference_s(case):
    found, inputs = exact(case, random_inputs(case))
    wanted = reference(case, inputs)
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=0, atol=1e-12)


def test_dy_is_zero_beside_the_kink():
    case = Case("batch_norm", (64, 8, 8, 8), residual=True, activation="relu")
    given = random_inputs(case)
    found, inputs = exact(case, given)
    z = exact(replace(case, activation=None), given).results["y"]
    near = z.abs() < KINK
    assert near.any()
    assert torch.equal(inputs.dy == 0, near)
    assert torch.equal(found["dresidual"][~near], torch.where(z > 0, inputs.dy.double(), 0.0)[~near])


@pytest.mark.parametrize("name", ["y", "dweight"])
def test_ulps_are_those_of_the_cpu(name):
    axes = axes_of("layer", (4, 31))
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(4, 31, generator=generator, dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        computed = (wanted + 1e-3 * torch.randn(4, 31, generator=generator)).to(dtype)
        found = ulps.error(name, computed, wanted, axes)
        assert found.largest == error(name, computed, wanted.numpy(), axes).largest
    assert ulps.error(name, computed * torch.nan, wanted, axes).largest == np.inf


def test_parameters_of_a_half_batch_norm_are_wide():
    for operator, dtype in (("batch_norm", torch.float32), ("instance_norm", torch.bfloat16)):
        inputs = inputs_of(Case(operator, (4, 8, 2, 2), dtype="bfloat16"), torch.device("cpu"), seed=0)
        assert inputs.x.dtype == torch.bfloat16
        assert inputs.weight.dtype == dtype
