"""The unit of the errors."""

import numpy as np
import pytest
import torch

from benchmarks.ulps import error, ulp
from normwright.reference import axes_of

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("magnitude", [0.0, 1e-6, 0.75, 1.0, 3.0, 60000.0])
def test_an_ulp_is_the_distance_to_the_next_number(dtype, magnitude):
    number = torch.tensor(magnitude, dtype=dtype)
    step = torch.nextafter(number, torch.tensor(torch.inf, dtype=dtype)) - number
    assert ulp(np.array(float(number)), dtype) == float(step)


def test_the_unit_is_of_the_largest_that_shares_the_moment():
    axes = axes_of("layer", (2, 2))
    exact = np.array([[1.0, 0.0], [4.0, 0.0]])
    off = torch.tensor([[1.0, 2.0**-22], [4.0, 2.0**-22]])
    assert error("y", off, exact, axes) == (0.25, 2.0)
    assert error("y", torch.tensor([[1.0, torch.nan], [4.0, 0.0]]), exact, axes).largest == torch.inf


def test_the_unit_of_a_parameter_s_gradient_is_of_the_vector():
    axes = axes_of("layer", (2, 2))
    assert error("dweight", torch.tensor([2.0, 2.0**-21]), np.array([2.0, 0.0]), axes).largest == 2.0
