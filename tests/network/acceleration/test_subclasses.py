"""Subclasses that call PyTorch's function themselves, as those of timm and Transformers do, call ours."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from same import assert_loads_both_ways, assert_same, fused_of, randomise
from torch import nn
from torch.nn import functional as F

from normwright.network import accelerate_with_report, convert, freeze, unfreeze
from normwright.statistics import recalibrate

X = torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class BatchNormAct(nn.BatchNorm2d):
    """As `BatchNormAct2d` of timm."""

    def __init__(self, channels, act=nn.ReLU):
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = act()

    def forward(self, x):
        torch._assert(x.ndim == 4, f"expected 4 axes, got {x.ndim}")
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        training = self.training or (self.running_mean is None and self.running_var is None)
        tracked = not self.training or self.track_running_stats
        mean = self.running_mean if tracked else None
        variance = self.running_var if tracked else None
        x = F.batch_norm(x, mean, variance, self.weight, self.bias, training, self.momentum, self.eps)
        return self.act(self.drop(x))


class GroupNormAct(nn.GroupNorm):
    def forward(self, x):
        return F.silu(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps))


class GroupNormThenModule(nn.GroupNorm):
    """As `GroupNormAct` of timm and `BitGroupNormActivation` of Transformers."""

    def __init__(self, groups, channels):
        super().__init__(groups, channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps))


class LayerNormOfChannels(nn.LayerNorm):
    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class LayerNormOfItsOwnEps(nn.LayerNorm):
    def __init__(self, width):
        super().__init__(width, eps=1e-3)


class RootMeanSquareNorm(nn.Module):
    """Derives from no normaliser, and is one by name."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (5,), self.weight, 1e-5)


class ChangedBefore(nn.LayerNorm):
    """What it normalised is another by the time of the activation."""

    def forward(self, x):
        y = x * 1.0
        z = F.layer_norm(y, self.normalized_shape, self.weight, self.bias, self.eps)
        y.mul_(2)
        return torch.tanh(z) + y


SUBCLASSES = {
    "batch": (lambda: BatchNormAct(4), "normwright.functional.batch_norm", ("relu",)),
    "batch, another activation": (
        lambda: BatchNormAct(4, nn.Softplus), "normwright.functional.batch_norm", (),
    ),
    "group": (lambda: GroupNormAct(2, 4), "normwright.functional.group_norm", ("silu",)),
    "group, then a module": (
        lambda: GroupNormThenModule(2, 4), "normwright.functional.group_norm", ("relu",),
    ),
    "layer": (lambda: LayerNormOfChannels(4), "normwright.functional.layer_norm", ()),
    "no forward of its own": (lambda: LayerNormOfItsOwnEps(5), "normwright.functional.layer_norm", ()),
    "by name": (lambda: RootMeanSquareNorm(5), "normwright.functional.rms_norm", ()),
    "changed in between": (lambda: ChangedBefore(5), "normwright.functional.layer_norm", ()),
}  # fmt: skip


def call(network):
    return network(X.clone())


def network_of(kind):
    return randomise(nn.Sequential(nn.Conv2d(4, 4, 1), SUBCLASSES[kind][0](), nn.Conv2d(4, 4, 1)))


@pytest.mark.parametrize("kind", SUBCLASSES)
def test_a_subclass_calls_ours(kind):
    network = network_of(kind)
    fast, report = accelerate_with_report(network)
    (record,) = report.normalisers
    assert (record.became, record.fused) == SUBCLASSES[kind][1:]
    assert report.blocks == () or {block.name for block in report.blocks} <= {""}
    assert isinstance(fast[1], type(network[1]))
    if kind == "changed in between":  # no gradient, as in PyTorch
        with torch.no_grad():
            assert_same(network, fast, call)
    else:
        assert_same(network, fast, call)
    assert_loads_both_ways(network, fast)
    for again in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(call(again), call(fast))


def _without_statistics(network):
    network[1].running_mean = network[1].running_var = None


def _with_another_momentum(network):
    network[1].momentum = 0.5


def _with_another_activation(network):
    network[1].act = nn.Tanh()


def _with_a_hook(network):
    network[1].act.register_forward_hook(lambda module, args, output: 2 * output)


@pytest.mark.parametrize(
    "change", [_without_statistics, _with_another_momentum, _with_another_activation, _with_a_hook]
)
def test_what_is_changed_later_counts(change):
    network = network_of("batch")
    fast = accelerate_with_report(network)[0]
    for part in (network, fast):
        change(part)
    assert_same(network, fast, call)


def test_a_subclass_is_frozen_and_its_statistics_estimated():
    network = network_of("batch").eval()
    fast = accelerate_with_report(network)[0]
    frozen = freeze(fast)
    assert torch.equal(call(pickle.loads(pickle.dumps(frozen)).train()), call(network))
    assert type(unfreeze(frozen)[1]) is BatchNormAct
    for part in (network, fast):
        recalibrate(part, [X])
    assert_same(network, fast, call)


class LayerNormWithALambda(nn.LayerNorm):
    act = staticmethod(lambda y: y.clamp(max=1.0))

    def forward(self, x):
        return self.act(super().forward(x))


def test_a_class_that_holds_a_lambda_can_be_pickled():
    network = randomise(nn.Sequential(LayerNormWithALambda(5)))
    fast, report = accelerate_with_report(network)
    assert "its class holds 'act', a function without a name" in report.normalisers[0].reason
    again = pickle.loads(pickle.dumps(fast))
    assert torch.equal(call(again), call(network))


def test_a_subclass_without_a_forward_of_its_own_is_converted_and_back():
    network = network_of("no forward of its own").eval()
    fast = accelerate_with_report(network)[0]
    there = convert(fast, "rms", of=["layer"], lossy=True)
    back = convert(pickle.loads(pickle.dumps(there)), "layer")
    assert type(back[1]) is LayerNormOfItsOwnEps
    assert torch.equal(call(back), call(network))


# PyTorch's tracer instantiates autograd functions, and warns that one should not.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_subclass_compiles_whole():
    torch._dynamo.reset()
    fast = accelerate_with_report(network_of("batch"))[0].eval()
    compiled = torch.compile(fast, fullgraph=True, backend="eager")
    assert fused_of(accelerate_with_report(fast)[1]) == {"1": ("relu",)}
    assert torch.equal(call(compiled), call(fast))


def test_a_layer_norm_of_a_permuted_input_lies_in_memory_as_pytorchs():
    class OfChannels(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1))

    plain, x = OfChannels(4), torch.randn(2, 4, 3, 5)
    y = accelerate_with_report(plain)[0](x)
    assert y.stride() == plain(x).stride()
    torch.testing.assert_close(y, plain(x))


class OwnSiLU(nn.Module):
    """As `SiLUActivation` of Transformers."""

    def forward(self, x):
        return F.silu(x)


class OwnGELU(nn.Module):
    """As `GELUActivation` of Transformers."""

    def __init__(self):
        super().__init__()
        self.act = F.gelu

    def forward(self, x):
        return self.act(x)


class Scaled(OwnSiLU):
    def forward(self, x):
        return 2 * F.silu(x)


class ConvNormAct(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), activation()

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


@pytest.mark.parametrize(("activation", "name"), [(OwnSiLU, "silu"), (OwnGELU, "gelu"), (Scaled, None)])
def test_an_activation_of_another_library_is_fused(activation, name):
    network = nn.Sequential(ConvNormAct(activation), ConvNormAct(activation)).double()
    randomise(network)
    fast, report = accelerate_with_report(network)
    assert [record.fused for record in report.normalisers] == [(name,) if name else ()] * 2
    assert_same(network, fast, lambda network: network(X))
    for changed in (network, fast):  # its own forward runs again
        changed[0].act.register_forward_hook(lambda module, args, output: 3 * output)
    assert_same(network, fast, lambda network: network(X))
