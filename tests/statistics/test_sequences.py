"""Recalibrating what keeps statistics per time step, or of what a mask counts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tolerances import recurrent

from normwright import nn, recalibrate
from normwright.errors import DataError, OptionError, ShapeError
from normwright.reference import LSTMWeights, normalised_lstm
from normwright.statistics import adapt

EPS, UNITS = 0.5, 5
LENGTHS = [[6, 4, 6], [5, 5, 3], [2, 6, 6]]


def network_of(**options):
    torch.manual_seed(0)
    module = nn.BatchNormLSTM(3, UNITS, eps=EPS, dtype=torch.float64, **{"max_length": 6, **options})
    with torch.no_grad():
        for norm in module.children():
            norm.weight.uniform_(0.25, 0.5)
    return module


def batches_of(lengths=LENGTHS):
    draw = torch.Generator().manual_seed(1)
    for each in lengths:
        x = torch.rand(6, 3, 3, generator=draw, dtype=torch.float64) * 4 - 2
        yield {"input": x, "lengths": torch.tensor(each)}


def joined(steps, counts):
    """Mean and total variance of mini-batches, by their definition."""
    counts = np.array(counts)[:, None]
    means, variances = (np.stack(parts) for parts in zip(*steps, strict=True))
    mean = (counts * means).sum(0) / counts.sum()
    return mean, (counts * (variances + (means - mean) ** 2)).sum(0) / counts.sum()


def expected_of(network, batches, cap=6):
    take = {key: tensor.detach().numpy() for key, tensor in network.named_parameters()}
    bias = take["bias_ih_l0"] + take["bias_hh_l0"]
    gains = [take[f"norm_{part}_l0.weight"] for part in ("ih", "hh", "c")]
    weights = LSTMWeights(take["weight_ih_l0"], take["weight_hh_l0"], bias, *gains, take["norm_c_l0.bias"])
    seen = {}
    for batch in batches:
        lengths = batch["lengths"].tolist()
        done = normalised_lstm(batch["input"].numpy(), lengths, weights, "batch", EPS)
        for step, taken in enumerate(done.moments):
            count = sum(length > step for length in lengths)
            for part, moments in zip(("ih", "hh", "c"), taken, strict=True):
                if count:
                    seen.setdefault((part, min(step, cap - 1)), []).append((moments, count))
    return {
        key: joined([moments for moments, _ in found], [count for _, count in found])
        for key, found in seen.items()
    }


@pytest.mark.parametrize("cap", [6, 2])
def test_every_step_is_estimated_anew(cap):
    network = network_of(max_length=cap)
    batches = list(batches_of())
    before = copy.deepcopy(network.state_dict())
    handle = recalibrate(network.eval(), batches)
    expected = expected_of(network, batches, cap)
    for (part, step), (mean, variance) in expected.items():
        norm = getattr(network, f"norm_{part}_l0")
        bound = recurrent(torch.float64, 6)
        assert np.abs(norm.running_mean[step].numpy() - mean).max() <= bound
        assert np.abs(norm.running_var[step].numpy() - variance).max() <= bound * max(1, variance.max())
    assert network.norm_c_l0.num_batches_tracked.tolist() == [1] * cap
    network(next(iter(batches))["input"])  # every step is known now
    assert [change.name for change in handle.layers] == ["norm_ih_l0", "norm_hh_l0", "norm_c_l0"]
    assert handle.layers[0].uses == 17
    assert handle.layers[0].elements == sum(map(sum, LENGTHS))
    ratios = [(variance + EPS) / (1 + EPS) for (part, _), (_, variance) in expected.items() if part == "ih"]
    low, high = handle.layers[0].variance_ratio
    assert low == pytest.approx(np.min(ratios), rel=1e-12)
    assert high == pytest.approx(np.max(ratios), rel=1e-12)
    handle.undo()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_steps_that_training_never_reached():
    network = network_of()
    first = next(batches_of())["input"]
    network(first[:3])
    network.eval()
    with pytest.raises(ShapeError, match="at most 3 steps long"):
        network(first)
    handle = recalibrate(network, batches_of())
    assert network.norm_hh_l0.num_batches_tracked.tolist() == [1] * 6
    network(first)
    handle.undo()
    assert network.norm_hh_l0.num_batches_tracked.tolist() == [1, 1, 1, 0, 0, 0]
    with pytest.raises(ShapeError, match="at most 3 steps long"):
        network(first)


def test_a_lone_sequence_at_the_end_has_no_part():
    network = network_of().eval()
    recalibrate(network, batches_of([[6, 4, 3], [6, 4, 4]]))
    assert network.norm_c_l0.num_batches_tracked.tolist() == [1, 1, 1, 1, 0, 0]
    assert torch.equal(network.norm_c_l0.running_var[4:], torch.ones(2, UNITS).double())


def test_a_cell_of_the_user_s_own():
    class Cell(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.RecurrentBatchNorm(3, 2)

        def forward(self, x):
            return [self.norm(row, step) for step, row in enumerate(x)]

    network = Cell().eval()
    x = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(0)) + 2
    recalibrate(network, [x])
    torch.testing.assert_close(network.norm.running_mean[0], x[0].mean(0))
    torch.testing.assert_close(network.norm.running_mean[1], x[1:].mean((0, 1)))
    torch.testing.assert_close(network.norm.running_var[1], x[1:].flatten(0, 1).var(0, unbiased=False))


def test_a_mask_counts_what_it_counts():
    norm = nn.MaskedBatchNorm1d(3).eval()
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)) + 2
    mask = torch.arange(5) < torch.tensor([5, 1, 3, 0]).unsqueeze(1)
    handle = recalibrate(norm, [{"input": x, "mask": mask}])
    rows = x.transpose(1, 2)[mask]
    torch.testing.assert_close(norm.running_mean, rows.mean(0))
    torch.testing.assert_close(norm.running_var, rows.var(0, unbiased=False))
    assert handle.layers[0].elements == 9


def test_a_failure_leaves_all_as_it_was():
    network = network_of()
    network(next(batches_of())["input"])
    before = copy.deepcopy(network.state_dict())

    def spoilt():
        yield from batches_of()
        x = next(batches_of())["input"]
        x[2, 1] = float("nan")
        yield {"input": x}

    with pytest.raises(DataError, match=r"layer 'norm_ih_l0'.*batch 4"):
        recalibrate(network.eval(), spoilt())
    with pytest.raises(ShapeError, match="more than 1 value per channel"):
        recalibrate(network, [next(batches_of())["input"][:, :1]])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_frozen_ones_and_adapt_leave_them_alone():
    network = network_of().train()
    network(next(batches_of())["input"])
    network.norm_hh_l0.eval()
    before = network.norm_hh_l0.running_mean.clone()
    handle = recalibrate(network, batches_of())
    assert torch.equal(network.norm_hh_l0.running_mean, before)
    assert handle.layers[1].reason.startswith("frozen")
    with pytest.raises(OptionError, match="keeps statistics for each time step"):
        adapt(network.eval(), batches_of())


def test_an_lstm_that_was_made_in_inference_mode():
    """Its rows do not know the buffers that they are of."""
    ordinary = network_of().eval()
    with torch.inference_mode():
        network = network_of().eval()
    before = copy.deepcopy(network.state_dict())
    recalibrate(ordinary, batches_of())
    handle = recalibrate(network, batches_of())
    for key, value in network.state_dict().items():
        assert torch.equal(value, ordinary.state_dict()[key]), key
    handle.undo()
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key
