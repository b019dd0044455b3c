"""Statistics of the joined data set, in any cut of it, and nothing else changed."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from seen_inputs import Inputs, assert_statistics, joined
from torch import nn
from torch.nn import functional as F
from whole_state import STATISTICS, FrozenBatchNorm2d, draw, same_state, small_network, state_of

import normwright as nw
from normwright.reference.population import within

KINDS = {
    "BatchNorm1d": (nn.BatchNorm1d, (5,)),
    "BatchNorm1d of a sequence": (nn.BatchNorm1d, (5, 7)),
    "BatchNorm2d": (nn.BatchNorm2d, (5, 4, 6)),
    "BatchNorm3d": (nn.BatchNorm3d, (5, 2, 3, 4)),
    "SyncBatchNorm": (nn.SyncBatchNorm, (5, 4, 6)),
    "normwright's": (nw.nn.BatchNorm2d, (5, 4, 6)),
    "InstanceNorm2d": (lambda c: nn.InstanceNorm2d(c, track_running_stats=True), (5, 4, 6)),
    "normwright's InstanceNorm2d": (lambda c: nw.nn.InstanceNorm2d(c, track_running_stats=True), (5, 4, 6)),
}


@pytest.mark.parametrize("ratio", [0.0, 1e4], ids=["", "mean/deviation 1e4"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("kind", KINDS)
def test_total_is_exact_against_the_joined_data_set(kind, training, ratio):
    """PEERS: fp32 cancellation when |mean| ≫ deviation; batches weighted equally though unequal."""
    make, shape = KINDS[kind]
    network = nn.Sequential(make(5)).train(training)
    batches = [draw(n, *shape, seed=n) * 2 + 2 * ratio + n for n in (8, 3, 13)]
    handle = nw.recalibrate(network, batches)
    x = torch.cat(batches).double().movedim(1, 0).flatten(1).numpy()
    assert_statistics(network[0], x.mean(1), x.var(1))
    assert handle.samples == 24
    assert handle.layers[0].elements == x.shape[1]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "Instance" not in kind])
def test_within_is_the_papers_weighted_by_count(kind):
    """PEERS: estimators disagree and do not say which they compute."""
    make, shape = KINDS[kind]
    network = nn.Sequential(make(5)).eval()
    batches = [draw(n, *shape, seed=n) + n for n in (8, 3, 13)]
    report = nw.recalibrate(network, batches, estimator="within").report
    rows = [batch.double().movedim(1, 0).flatten(1).numpy() for batch in batches]
    expected = within(
        [row.mean(1) for row in rows], [row.var(1) for row in rows], [row.shape[1] for row in rows]
    )
    assert_statistics(network[0], expected.mean, expected.variance)
    assert "(within variance)" in str(report)


def test_within_takes_each_sample_of_instance_norm_for_a_mini_batch():
    network = nn.InstanceNorm2d(5, track_running_stats=True).eval()
    batches = [draw(n, 5, 4, 6, seed=n) + n for n in (2, 3)]
    nw.recalibrate(network, batches, estimator="within")
    rows = [sample.double().flatten(1).numpy() for batch in batches for sample in batch]
    expected = within([row.mean(1) for row in rows], [row.var(1) for row in rows], [24] * len(rows))
    # the variance comes back from rstd = 1/√(variance + eps) in float64
    assert_statistics(network, expected.mean, expected.variance)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nw.nn.BatchNorm2d], ids=["torch", "normwright"])
def test_later_layers_see_what_training_shows_them(norm):
    network = small_network(norm).eval()
    batches = [draw(n, 3, 9, 9, seed=n) * 3 + 1 for n in (4, 6)]
    norms = {"1": network[1], "4": network[4]}
    with Inputs(norms) as inputs:
        nw.recalibrate(network, batches)
    for name, module in norms.items():
        assert_statistics(module, *joined(inputs.calls[name]), name)
    # the second normaliser was given what the first one makes of a batch by that batch's own moments
    trained = small_network(norm).train()
    trained.load_state_dict(small_network(norm).state_dict())
    with Inputs({"4": trained[4]}) as seen, torch.no_grad():
        trained(batches[0])
    np.testing.assert_allclose(inputs.calls["4"][0], seen.calls["4"][0], rtol=1e-4, atol=1e-5)


def test_only_the_statistics_change_and_undo_brings_them_back():
    """PEERS: momenta, modes and hooks are not restored; frozen layers are changed."""
    network = small_network()
    network[1].momentum, network[4].momentum = 0.3, None
    network[1].num_batches_tracked += 7
    network.append(nn.Dropout(0.5)).eval()
    network[2].register_forward_hook(lambda *_: None)
    buffers = dict(network.named_buffers())
    places = [buffer.data_ptr() for buffer in buffers.values()]
    before = state_of(network)
    handle = nw.recalibrate(network, [draw(4, 3, 9, 9)])
    after = state_of(network)
    assert same_state(before, after, but=STATISTICS)
    assert not same_state(before, after)
    assert all(buffer is buffers[name] for name, buffer in network.named_buffers())
    assert places == [buffer.data_ptr() for buffer in network.buffers()]
    handle.undo()
    handle.undo()
    assert same_state(before, state_of(network))


def test_dropout_stays_asleep():
    """PEERS: dropout is woken up."""
    network = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3)).eval()
    x = draw(64, 3) + 5
    nw.recalibrate(network, [x])
    assert_statistics(network[1], x.double().numpy().mean(0), x.double().numpy().var(0))


def test_dropout_that_is_awake_is_named_and_stays_so():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    with pytest.warns(UserWarning, match=r"dropout '0' is in training mode.*network\.eval\(\)"):
        nw.recalibrate(network, [draw(64, 3)])
    assert network[0].training


def test_frozen_ones_stay_as_they_were():
    network = small_network().train()
    network[4].eval()
    network.insert(0, FrozenBatchNorm2d(3))
    report = nw.recalibrate(network, [draw(4, 3, 9, 9)]).report
    assert [layer.reason for layer in report.layers] == [
        "frozen",
        "",
        "frozen: in inference mode while the network trains",
    ]
    assert torch.equal(network[5].running_mean, torch.zeros(6))
    assert torch.equal(network[0].running_var, torch.ones(3))


def test_only_the_layers_asked_for():
    network = small_network().train()
    handle = nw.recalibrate(network, [draw(4, 3, 9, 9)], layers=["4"])
    assert torch.equal(network[1].running_mean, torch.zeros(4))
    assert int(network[1].num_batches_tracked) == 0
    assert [layer.reason for layer in handle.layers] == ["not chosen", ""]
    with pytest.raises(nw.errors.OptionError, match="unknown layer 'four'"):
        nw.recalibrate(network, [draw(4, 3, 9, 9)], layers=["four"])


def test_a_layer_is_chosen_by_any_name_that_it_stands_under():
    norm = nn.BatchNorm2d(3)
    network = nn.Sequential(nn.BatchNorm2d(3), norm, nn.ReLU(), norm).eval()
    rows = nw.recalibrate(network, [draw(4, 3, 9, 9)], layers=["3"]).layers
    assert [(row.name, row.uses, row.reason) for row in rows] == [("0", 0, "not chosen"), ("1", 2, "")]


def test_a_layer_used_twice_counts_once_per_use():
    norm = nn.BatchNorm1d(3)
    network = nn.Sequential(norm, nn.Linear(3, 3), norm).eval()
    with Inputs({"0": norm}) as inputs:
        handle = nw.recalibrate(network, [draw(8, 3), draw(5, 3, seed=1)])
    assert_statistics(norm, *joined(inputs.calls["0"]))
    assert (handle.layers[0].uses, handle.layers[0].elements) == (4, 26)


class Functional(nn.Module):
    """Normalises by calls with buffers of its own."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        for name, value in (("running", 0.0), ("other", 0.0)):
            self.register_buffer(f"{name}_mean", torch.full((3,), value))
            self.register_buffer(f"{name}_var", torch.ones(3))

    def forward(self, x):
        y = self.function(x, self.running_mean, self.running_var, training=self.training)
        return self.function(y + 2, self.other_mean, self.other_var, training=self.training)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("function", [F.batch_norm, nw.functional.batch_norm], ids=["torch", "normwright"])
def test_functional_calls_with_buffers(function, training):
    network = nn.Sequential(Functional(function)).train(training)
    x = draw(16, 3) * 2 + 5
    handle = nw.recalibrate(network, [x])
    assert_statistics(network[0], x.double().numpy().mean(0), x.double().numpy().var(0))
    assert network[0].other_mean.tolist() == pytest.approx([2, 2, 2], abs=1e-6)
    assert [layer.name for layer in handle.layers] == ["0", "0.other_mean"]


class _Apart(nn.Module):
    """Layers of unlike kinds, widths and uses, none of which sees what another made."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow, self.twice = nn.BatchNorm2d(6), nn.BatchNorm2d(2), nw.nn.BatchNorm2d(3)
        self.of_samples = nn.InstanceNorm2d(4, track_running_stats=True)
        self.whitening = nw.nn.WhiteningNorm2d(4, group_size=2)
        self.other = nn.BatchNorm2d(1)

    def forward(self, x):
        self.twice(x[:, :3])
        self.wide(x)
        self.narrow(x[:, 1:3])
        self.whitening(x[:, 2:])
        self.of_samples(x[:, :4])
        self.other(x[:, 5:])
        return self.twice(x[:, 3:])


@pytest.mark.parametrize("estimator", ["total", "within"])
def test_layers_are_merged_together_as_each_by_itself(estimator):
    torch.manual_seed(0)
    network = _Apart().eval()
    batches = [draw(n, 6, 4, 3, seed=n) + n / 8 for n in (8, 3, 5, 2)]
    together = nw.recalibrate(copy.deepcopy(network), batches, estimator=estimator)
    for row in together.layers:
        assert row.uses == (8 if row.name == "twice" else 4)
        alone = copy.deepcopy(network)
        [own] = [
            other
            for other in nw.recalibrate(alone, batches, layers=[row.name], estimator=estimator).layers
            if not other.reason
        ]
        assert own == row


def test_samples_bounds_what_is_read_and_a_shorter_loader_is_no_error():
    """PEERS: a loader shorter than asked raises an assert."""
    batches = [draw(4, 3, seed=n) for n in range(5)]
    read = []

    def loader():
        for number, batch in enumerate(batches):
            read.append(number)
            yield batch

    network = nn.BatchNorm1d(3).eval()
    handle = nw.recalibrate(network, loader(), samples=8)
    assert read == [0, 1]
    assert (handle.samples, handle.report.batches) == (8, 2)
    assert "8 samples asked for" in str(handle)
    handle = nw.recalibrate(network, batches, samples=1000)
    assert handle.samples == 20
    assert "the batches ended" in str(handle)


def test_stops_by_itself_when_the_statistics_are_known():
    generator = torch.Generator().manual_seed(0)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield torch.randn(32, 3, generator=generator)

    network = nn.BatchNorm1d(3).eval()
    handle = nw.recalibrate(network, endless(), tolerance=0.02)
    # A mean of n normal draws has an error of 1/√n deviations, a variance one of √(2/n): 2/0.02² = 5,000
    # draws, 156 batches. Ends lie where the error of three channels, itself known to some 15 %, falls below.
    assert 100 <= read <= 320
    layer = handle.layers[0]
    assert layer.mean_error <= 0.02
    assert layer.variance_error <= 0.02
    assert "known to 0.02" in str(handle)
    # and the statistics are what the promise says, to three standard errors
    assert float(network.running_mean.abs().max()) <= 3 * 0.02
    assert float((network.running_var - 1).abs().max()) <= 3 * 0.02


def test_averaged_weights_recalibrate():
    """Statistics of weights that were never trained with: SWA and EMA."""
    network = small_network()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    for step in range(3):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * step)
        averaged.update_parameters(network)
    averaged.eval()
    norms = {"1": averaged.module[1], "4": averaged.module[4]}
    with Inputs(norms) as inputs:
        handle = nw.recalibrate(averaged, [draw(4, 3, 9, 9), draw(3, 3, 9, 9, seed=1)])
    for name, module in norms.items():
        assert_statistics(module, *joined(inputs.calls[name]))
    assert [layer.name for layer in handle.layers] == ["module.1", "module.4"]
    assert int(averaged.n_averaged) == 3


def test_activation_checkpointing_counts_a_batch_once():
    """PEERS: activation checkpointing updates statistics twice."""
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            return checkpoint(self.norm, x, use_reentrant=False)

    network = Checkpointed().eval()
    handle = nw.recalibrate(network, [draw(8, 3)])
    assert (handle.layers[0].uses, handle.layers[0].elements) == (1, 8)


def test_an_accelerated_network_gets_the_same_statistics():
    network, batches = small_network().eval(), [draw(4, 3, 9, 9), draw(3, 3, 9, 9, seed=1)]
    fast = nw.accelerate(network)
    nw.recalibrate(network, batches)
    nw.recalibrate(fast, batches)
    for name, value in network.state_dict().items():
        # the fused kernel and PyTorch's differ by roundings in what the second normaliser is given
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_a_compiled_network_is_looked_through():
    network = small_network().eval()
    x = draw(4, 3, 9, 9)
    compiled = torch.compile(network, backend="eager")
    compiled(x)
    network.compile(backend="eager")
    nw.recalibrate(compiled, [x])
    with torch.no_grad():
        first = network[0](x).double().movedim(1, 0).flatten(1).numpy()
    assert_statistics(network[1], first.mean(1), first.var(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_input_is_estimated_in_float64(dtype):
    network = nn.BatchNorm2d(3).eval()
    batches = [(draw(8, 3, 5, 5, seed=n) + 3).to(dtype) for n in range(3)]
    nw.recalibrate(network, batches)
    x = torch.cat(batches).double().movedim(1, 0).flatten(1).numpy()
    assert_statistics(network, x.mean(1), x.var(1))


def test_the_report_is_plain_values():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2)).eval()
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    handle = nw.recalibrate(network, [x])
    report = json.loads(json.dumps(dataclasses.asdict(handle.report)))
    assert report["layers"][0]["mean_shift"] == pytest.approx(2, rel=1e-4)
    # after 1, before 1; after 0, before 1
    assert report["layers"][0]["variance_ratio"] == pytest.approx([1e-5, 1.0], rel=1e-3)
    assert report["layers"][0]["mean_error"] is None
    assert report["layers"][1]["reason"] == "keeps no statistics"
    assert str(handle.table()).splitlines()[0] == (
        "1 of 2 normalisers re-estimated (total variance) from 2 samples in 1 batch: the batches ended."
    )


def test_a_network_without_statistics_says_what_it_has_of_normalisers():
    many = nn.Sequential(*[nn.LayerNorm(4) for _ in range(10)])
    with pytest.raises(nw.errors.OptionError, match=r"7 \(LayerNorm\): keeps .*; and so are 2 more\. Build"):
        nw.recalibrate(many, [torch.ones(2, 4)])

    class OwnRMSNorm(nn.Module):
        def forward(self, x):
            return x * x.square().mean(-1, keepdim=True).rsqrt()

    with pytest.raises(nw.errors.OptionError, match="it has none of those known here"):
        nw.recalibrate(nn.Sequential(nn.Linear(4, 4), OwnRMSNorm()), [torch.ones(2, 4)])
