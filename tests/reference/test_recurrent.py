"""The normalised LSTM's formula: a plain LSTM without its normalisers, and blind to what is padding."""

import numpy as np
import pytest
import torch

from normwright.errors import ShapeError
from normwright.reference import LSTMWeights, batch_norm, layer_norm, normalised_lstm

UNITS, INPUTS = 3, 2


def by_row(x, **options):
    return layer_norm(x, x.shape[1:], **options)


@pytest.fixture
def weights():
    random = np.random.default_rng(0)
    shapes = ((4 * UNITS, INPUTS), (4 * UNITS, UNITS), 4 * UNITS, 4 * UNITS, 4 * UNITS, UNITS, UNITS)
    return LSTMWeights(*(random.uniform(-1, 1, shape) for shape in shapes))


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(-2, 2, (4, 3, INPUTS))


def test_without_normalisers_it_is_pytorch_s_lstm(weights, x):
    """The order of the gates is PyTorch's, so that its checkpoints mean the same."""
    theirs = torch.nn.LSTM(INPUTS, UNITS, dtype=torch.float64)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh"):
            getattr(theirs, f"{name}_l0").copy_(torch.from_numpy(getattr(weights, name)))
        theirs.bias_ih_l0.copy_(torch.from_numpy(weights.bias))
        theirs.bias_hh_l0.zero_()
        h, c = (torch.rand(1, 3, UNITS, dtype=torch.float64) for _ in range(2))
        output, (last_h, last_c) = theirs(torch.from_numpy(x), (h, c))
    ours = normalised_lstm(x, [4, 4, 4], weights, None, hidden=h[0].numpy(), cell=c[0].numpy())
    for mine, other in ((ours.output, output), (ours.hidden, last_h[0]), (ours.cell, last_c[0])):
        np.testing.assert_allclose(mine, other.numpy(), rtol=0, atol=1e-14)  # 4 steps of 20 roundings


@pytest.mark.parametrize(("kind", "norm"), [("batch", batch_norm), ("layer", by_row)])
def test_a_step_written_out(weights, x, kind, norm):
    h, c = np.random.default_rng(2).uniform(-1, 1, (2, 3, UNITS))
    result = normalised_lstm(x[:1], [1, 1, 1], weights, kind, 0.1, h, c)
    z = norm(h @ weights.weight_hh.T, weight=weights.gain_hh, eps=0.1).y
    z = z + norm(x[0] @ weights.weight_ih.T, weight=weights.gain_ih, eps=0.1).y + weights.bias
    i, f, g, o = (z[:, gate * UNITS : (gate + 1) * UNITS] for gate in range(4))
    sigmoid = lambda value: 1 / (1 + np.exp(-value))  # noqa: E731
    cell = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    hidden = sigmoid(o) * np.tanh(norm(cell, weight=weights.gain_c, bias=weights.bias_c, eps=0.1).y)
    np.testing.assert_allclose(result.cell, cell, rtol=0, atol=1e-14)
    np.testing.assert_allclose(result.hidden, hidden, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(result.output[0], result.hidden)


@pytest.mark.parametrize("kind", [None, "batch", "layer"])
def test_padding_is_not_looked_at(weights, x, kind):
    lengths = [2, 4, 3]
    spoilt = x.copy()
    for row, length in enumerate(lengths):
        spoilt[length:, row] = np.nan
    one, other = (normalised_lstm(data, lengths, weights, kind) for data in (x, spoilt))
    np.testing.assert_array_equal(one.output, other.output)
    for row, length in enumerate(lengths):
        assert not one.output[length:, row].any()
        np.testing.assert_array_equal(one.output[length - 1, row], one.hidden[row])


def test_batch_norm_s_moments_are_those_of_the_sequences_that_go_on(weights, x):
    whole = normalised_lstm(x, [2, 4, 4], weights, "batch")
    inputs, hidden, _ = whole.moments[3]
    projected = x[3, 1:] @ weights.weight_ih.T
    np.testing.assert_allclose(inputs.mean, projected.mean(0), rtol=0, atol=1e-15)
    before = whole.output[2, 1:] @ weights.weight_hh.T
    np.testing.assert_allclose(hidden.variance, before.var(0), rtol=0, atol=1e-15)


def test_lengths_that_do_not_fit(weights, x):
    for lengths in ([4, 4], [0, 4, 4], [4, 5, 4]):
        with pytest.raises(ShapeError, match="lengths must be 3 numbers from 1 to 4"):
            normalised_lstm(x, lengths, weights, "batch")
