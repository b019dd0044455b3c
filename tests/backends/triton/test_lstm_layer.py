"""A batch-normalised LSTM's layer by the kernels, against plain operations."""

import pytest
import torch
from tolerances import recurrent, recurrent_gradient

from normwright.functional.lstm.batch_steps import BatchSteps
from normwright.functional.lstm.inputs import LstmInputs, LstmNorms
from normwright.functional.lstm.layer import lstm_layer
from normwright.functional.lstm.plain import plain_layer
from normwright.functional.step_statistics import StepStatistics

EPS, INPUTS, UNITS = 0.5, 2, 3


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.5


def inputs_of(sizes):
    gates = (4 * UNITS,)
    shapes = ((sum(sizes), INPUTS), *[(sizes[0], UNITS)] * 2, (*gates, INPUTS), (*gates, UNITS), gates, gates)
    shapes = (*shapes, gates, (UNITS,), (UNITS,))
    return LstmInputs(*(draw(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)))


def outcome(run, sizes):
    """Results, gradients, and the statistics that were moved."""
    inputs, widths = inputs_of(sizes), (4 * UNITS, 4 * UNITS, UNITS)
    steps = len(sizes)
    statistics = [
        StepStatistics(draw(steps, width), draw(steps, width) + 1, torch.ones(steps).long(), 0.25)
        for width in widths
    ]
    norms = LstmNorms(*(BatchSteps(one, training=True, eps=EPS, moving=True) for one in statistics))
    results = run(inputs, sizes, norms)
    norms.close()
    given = [draw(*y.shape, seed=7) for y in results]
    gradients = torch.autograd.grad(results, list(inputs), given)
    moved = [part for one in statistics for part in (one.mean, one.variance, one.count)]
    return [y.detach() for y in results], gradients, moved


@pytest.mark.parametrize("sizes", [(4, 4, 4), (5, 3, 2), (3, 2, 1, 1)], ids=str)
def test_the_kernels_are_plain_operations(sizes):
    bounds = [bound(torch.float32, len(sizes)) for bound in (recurrent, recurrent_gradient, recurrent)]
    for bound, *parts in zip(bounds, outcome(lstm_layer, sizes), outcome(plain_layer, sizes), strict=True):
        for one, other in zip(*parts, strict=True):
            assert float((one - other).abs().max()) <= bound
