"""What the reference's tests share: every normaliser, finite differences, and the bound on rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from normwright.reference import Axes, axes_of

UNIT = 2.0**-53
STEP = 2.0**-9


class Case(NamedTuple):
    axes: Axes
    center: bool
    x: np.ndarray
    dy: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


CASES = [
    ("batch", (5, 3), {}),
    ("batch", (4, 3, 5), {}),
    ("batch", (3, 2, 2, 3), {}),
    ("batch", (2, 2, 2, 1, 3), {}),
    ("batch", (1, 3), {}),  # one element per moment
    ("layer", (5, 4), {}),
    ("layer", (2, 3, 4), {}),
    ("layer", (2, 3, 4), {"normalized_shape": (4,)}),
    ("layer", (2, 3, 1, 2), {"normalized_shape": (1, 2)}),
    ("layer", (6,), {"normalized_shape": (6,)}),
    ("instance", (2, 3, 5), {}),
    ("instance", (2, 2, 3, 3), {}),
    ("instance", (2, 3, 1), {}),  # one element per moment
    ("group", (3, 6), {"groups": 2}),
    ("group", (2, 6, 3), {"groups": 3}),
    ("group", (2, 4, 2, 2), {"groups": 2}),
    ("rms", (5, 4), {}),
    ("rms", (2, 3, 4), {"normalized_shape": (4,)}),
    ("rms", (2, 3, 4), {}),
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, (case[0], case[1], *case[2].values()))))
def case(request: pytest.FixtureRequest) -> Case:
    """One normaliser on one shape, with inputs of size 1 and a mean that is not 0."""
    kind, shape, options = request.param
    axes = axes_of(kind, shape, **options)
    random = np.random.default_rng(7)
    return Case(
        axes,
        kind != "rms",
        x=random.uniform(-2, 4, shape),
        dy=random.uniform(-1, 1, shape),
        weight=random.uniform(0.5, 2, axes.weight_shape),
        bias=random.uniform(-1, 1, axes.weight_shape),
    )


@pytest.fixture
def assert_gradient() -> Callable[..., None]:
    """Asserts that a gradient is the slope of Σ dy·function(point), by five-point differences.

    The stencil with step h is wrong by c·h⁴ in truncation, so that with 2h it is wrong by 16·c·h⁴;
    what the two differ by is 15 times the error of the first. Rounding moves each loss by at most
    (roundings per term)·UNIT·Σ|dy·y|, which the stencil multiplies by 18/12/h.
    """

    def assert_gradient(gradient: np.ndarray, function, point: np.ndarray, dy: np.ndarray) -> None:
        def loss(index, offset):
            moved = point.copy()
            moved[index] += offset
            return float((dy * function(moved)).sum())

        def stencil(index, h):
            near = loss(index, h) - loss(index, -h)
            far = loss(index, 2 * h) - loss(index, -2 * h)
            return (8 * near - far) / (12 * h)

        assert gradient.shape == point.shape
        roundings = dy.size + 16
        rounding = 1.5 / STEP * roundings * UNIT * float(np.abs(dy * function(point)).sum() + 1)
        for index in np.ndindex(point.shape):
            slope = stencil(index, STEP)
            truncation = abs(stencil(index, 2 * STEP) - slope)
            # A coarse difference would pass anything: it must tell a gradient from a near miss.
            assert truncation + rounding < 1e-3
            assert abs(gradient[index] - slope) <= truncation + rounding

    return assert_gradient


@pytest.fixture
def assert_rounding() -> Callable[..., None]:
    """Asserts that two results differ by rounding alone.

    Each of `additions` summands and sixteen further operations rounds by at most UNIT times `scale`,
    the largest number met on the way; both results may err, in opposite directions.
    """

    def assert_rounding(actual, expected, *, additions: int, scale: float) -> None:
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2 * (additions + 16) * UNIT * scale)

    return assert_rounding
