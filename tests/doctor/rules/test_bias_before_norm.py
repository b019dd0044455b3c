"""The needless bias: found wherever a normaliser takes it away, and nowhere else; dropped without a trace."""

from __future__ import annotations

import copy

import pytest
import torch
from graphs import Calls, found, images
from torch import nn
from torch.nn import functional as F

import normwright as nw

RULE = "bias_before_norm"


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)  # registered before what it follows
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return F.relu(self.norm(self.convolution(x)))


def test_outside_of_a_sequential():
    finding = found(RULE, nn.ModuleDict({"a": _Block()})["a"], images())["convolution"]
    assert finding.severity == "note"
    assert "4 numbers" in finding.message
    assert "norm" in finding.message
    assert finding.where.rpartition(":")[0].endswith("test_bias_before_norm.py")


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4),
        nw.nn.BatchNorm2d(4, activation="relu"),
        nn.InstanceNorm2d(4),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.GroupNorm(4, 4),
        nn.LayerNorm((6, 6)),
        nn.BatchNorm2d(4, track_running_stats=False).eval(),
    ],
    ids=str,
)
def test_normalisers_that_take_the_mean_of_each_channel(norm):
    assert set(found(RULE, nn.Sequential(nn.Conv2d(3, 4, 3), norm), images())) == {"0"}


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 4),
        nn.GroupNorm(1, 4),
        nn.LayerNorm((4, 6, 6)),
        nn.RMSNorm((6, 6)),
        nn.LocalResponseNorm(2),
        nw.nn.FrozenBatchNorm2d(4),
        nw.freeze(nn.BatchNorm2d(4)),
        nw.nn.BatchRenorm2d(4),  # whose corrections lag behind the batch
    ],
    ids=str,
)
def test_normalisers_that_leave_something_of_it(norm):
    assert not found(RULE, nn.Sequential(nn.Conv2d(3, 4, 3), norm), images())


def test_a_norm_that_is_held_in_inference_mode_leaves_it():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network[1].eval()
    assert not found(RULE, network, images())
    assert found(RULE, network.eval(), images())  # as a whole, the network is only not being trained now


def test_a_norm_with_a_forward_of_its_own_may_leave_it():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) + x

    assert not found(RULE, nn.Sequential(nn.Conv2d(3, 4, 3), Doubled(4)), images())


def _two_readers(m, x):
    x = m.conv(x)
    return m.norm(x) + x


def _returned_too(m, x):
    x = m.conv(x)
    return m.norm(x), x


def _added_before(m, x):
    return m.norm(m.conv(x) + x[:, :1])


def _activated_before(m, x):
    return m.norm(m.conv(x).relu())


def _changed_in_place(m, x):
    x = m.conv(x)
    x[:, :, 0] = 0  # no longer constant in a channel
    return m.norm(x)


def _sliced(m, x):
    return m.norm(m.conv(x)[:, :, 1:])


def _pooled(m, x):
    return m.norm(F.max_pool2d(m.conv(x), 2))


@pytest.mark.parametrize(
    "forward",
    [_two_readers, _returned_too, _added_before, _activated_before, _changed_in_place, _sliced, _pooled],
)
def test_what_reads_the_layer_otherwise_keeps_its_bias(forward):
    network = Calls(forward, conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4))
    assert not found(RULE, network, images())


def test_a_residual_that_the_norm_adds_afterwards_keeps_its_bias():
    def forward(m, x):
        return m.norm(m.inner(x), residual=m.shortcut(x))

    network = Calls(forward, inner=nn.Conv2d(3, 4, 1), shortcut=nn.Conv2d(3, 4, 1), norm=nw.nn.BatchNorm2d(4))
    assert set(found(RULE, network, images())) == {"inner"}


def test_a_shared_layer_keeps_its_bias_for_the_place_without_a_norm():
    layer = nn.Linear(4, 4)
    one = Calls(lambda m, x: m.norm(m.layer(m.layer(x))), layer=layer, norm=nn.BatchNorm1d(4))
    assert not found(RULE, one, torch.randn(8, 4))
    both = Calls(
        lambda m, x: m.norm2(m.layer(m.norm1(m.layer(x)))),
        layer=layer,
        norm1=nn.BatchNorm1d(4),
        norm2=nn.BatchNorm1d(4),
    )
    message = found(RULE, both, torch.randn(8, 4))["layer"].message
    assert "norm1 and norm2" in message


def test_a_bias_that_is_tied_to_another_layers_stays():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.bias = first.bias
    assert not found(RULE, nn.Sequential(first, nn.BatchNorm1d(4), second), torch.randn(8, 4))


def test_features_on_another_axis_than_the_norms():
    steps = torch.randn(3, 6, 5)

    def right(m, x):
        return m.norm(m.linear(x).transpose(1, 2))

    def wrong(m, x):
        return m.norm(m.linear(x))  # six features for each of six steps: it normalises steps

    for forward, layers in ((right, {"linear"}), (wrong, set())):
        network = Calls(forward, linear=nn.Linear(5, 6), norm=nn.BatchNorm1d(6))
        assert set(found(RULE, network, steps)) == layers


def test_several_features_in_one_channel_keep_their_differences():
    def forward(m, x):
        return m.norm(m.linear(x).view(-1, 4, 2, 2))

    network = Calls(forward, linear=nn.Linear(5, 16), norm=nn.BatchNorm2d(4))
    assert not found(RULE, network, torch.randn(8, 5))


def test_functions_with_parameters_of_the_users_own():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 5))
            self.b = nn.Parameter(torch.randn(4))

        def forward(self, x):
            return F.batch_norm(F.linear(x, self.w, self.b), None, None, training=True)

    finding = found(RULE, Own(), torch.randn(8, 5))[": linear"]
    assert not finding.treatable  # the forward would have to be written anew


@pytest.mark.parametrize("optimiser", ["SGD", "Adam"])
def test_the_treatment_changes_nothing_that_is_computed(optimiser):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)).double()
    options = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 0.01}}[optimiser]
    steps = getattr(torch.optim, optimiser)(network.parameters(), **options)
    batches = [images().double() for _ in range(3)]

    def train(network, steps):
        for x in batches:
            steps.zero_grad()
            network(x).square().mean().backward()
            steps.step()

    train(network, steps)
    treated = found(RULE, network, batches[0], optimiser=steps)["0"].fix()
    mended = treated.network
    assert treated.mended
    assert mended[0].bias is None
    assert len(treated.optimiser.param_groups[0]["params"]) == len(list(mended.parameters())) == 5
    assert len(treated.optimiser.state) == 5

    def same(one, other):
        # the outputs are sums of 144 products, each of numbers that went through a few roundings
        scale = float(other.detach().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=144 * 8 * torch.finfo(torch.float64).eps * scale)

    same(mended.eval()(batches[1]), copy.deepcopy(network).eval()(batches[1]))
    same(mended.train()(batches[1]), copy.deepcopy(network).train()(batches[1]))
    train(network, steps)
    train(mended, treated.optimiser)
    # Adam divides by the bias's own rounding errors alone; everything else trains as before
    for name, weight in mended.named_parameters():
        torch.testing.assert_close(weight, network.get_parameter(name), rtol=1e-6, atol=1e-9)
