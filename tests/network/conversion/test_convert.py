"""Converting there and back: what stays, what comes back, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import warnings

import pytest
import torch
from small import batches_for, forward_of, images, known, plain_network
from torch import nn
from torch.nn.utils import parametrize, prune

import normwright as nw
from normwright.errors import ConversionError, DataError, OptionError, ShapeError
from normwright.network import convert_with_report
from normwright.network.conversion.groups import fitting_groups
from normwright.network.conversion.kinds import KINDS
from normwright.network.conversion.rules import TABLE, rule_for


def test_the_table_has_one_row_for_every_two_kinds():
    for source in KINDS:
        for target in KINDS:
            rows = [rule for rule in TABLE if source in rule.sources and target in rule.targets]
            assert len(rows) == 1 or source == target, (source, target)
            if source != target:
                assert rule_for(source, target) is rows[0]


@pytest.mark.parametrize("to", ["group", "instance", "layer", "rms"])
def test_a_round_trip_gives_the_same_bits_and_leaves_no_trace(to):
    network = plain_network()
    x = images()
    away = nw.convert(network, to, example=x, lossy=to == "rms")
    assert not torch.equal(away(x), network(x))
    back = nw.convert(away, "batch")
    assert torch.equal(back(x), network(x))
    for one, other in zip(back.modules(), network.modules(), strict=True):
        assert type(one) is type(other)
        assert vars(one).keys() == vars(other).keys()
    assert known(back) == known(network)
    state, model = back.state_dict(), network.state_dict()
    assert list(state) == list(model)
    assert all(map(torch.equal, state.values(), model.values()))
    # and it trains on as the network would have
    for one in (network, back):
        one.train()(x)
    assert all(map(torch.equal, back.state_dict().values(), network.state_dict().values()))


def test_a_round_trip_after_calibration_gives_the_same_bits():
    network = plain_network()
    away = nw.convert(network, "group", calibrate=batches_for(network))
    assert not torch.equal(away[1].weight, network[1].weight)
    further = nw.convert(away, "layer", calibrate=batches_for(network))
    for converted in (away, further):
        assert torch.equal(nw.convert(converted, "batch")(images()), network(images()))


def test_what_was_trained_since_stays_trained():
    network = plain_network()
    away = nw.convert(network, "group", calibrate=batches_for(network))
    with torch.no_grad():
        away[1].weight.mul_(3)
    back = nw.convert(away, "batch")
    assert torch.equal(back[1].weight, away[1].weight)
    assert torch.equal(back[4].weight, network[4].weight)


def test_weight_bias_and_eps_are_copied():
    """opacus #567: a conversion that copies none of them."""
    network = plain_network(eps=1e-3)
    away = nw.convert(network, "group")
    for index in (1, 4):
        assert away[index].eps == 1e-3
        assert torch.equal(away[index].weight, network[index].weight)
        assert torch.equal(away[index].bias, network[index].bias)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 7, 16, 24, 31, 64, 100, 2048])
@pytest.mark.parametrize("space", [None, 1, 4, 49])
def test_no_group_is_a_single_element(channels, space):
    """opacus #567: groups of one element, which zero every input."""
    if channels == 1 and space == 1:
        with pytest.raises(ShapeError, match="one element"):
            fitting_groups(channels, 32, space)
        return
    groups = fitting_groups(channels, 32, space)
    assert channels % groups == 0
    assert groups <= 32
    assert groups == 1 or channels // groups >= 2
    assert groups == 1 or space is None or (channels // groups) * space >= 16


def test_groups_follow_the_space_that_the_example_shows():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(64)).eval()
    assert nw.convert(network, "group")[1].num_groups == 32
    assert nw.convert(network, "group", example=torch.rand(2, 64, 4, 4))[1].num_groups == 4
    assert nw.convert(network, "group", groups=8)[1].num_groups == 8
    with pytest.raises(ShapeError, match="single element"):
        nw.convert(network, "instance", example=torch.rand(2, 64, 4, 4))
    one = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1)).eval()
    with pytest.raises(ShapeError, match="one element"):
        nw.convert(one, "group", example=torch.rand(2, 1, 4, 4))
    with pytest.raises(OptionError, match="groups= must be at least 1"):
        nw.convert(network, "group", groups=0)


def test_the_optimiser_s_parameters_stay_the_same_objects():
    network = plain_network()
    parameters = list(network.parameters())
    for to in ("group", "instance", "batch", "layer", "batch"):
        x = images() if to in ("instance", "layer") else None
        assert nw.convert(network, to, example=x, inplace=True) is network
        if to != "layer":
            assert all(map(lambda a, b: a is b, parameters, network.parameters())), to
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    nw.convert(network, "group", inplace=True, calibrate=batches_for(network))
    before = network[1].weight.detach().clone()
    network(images()).square().sum().backward()
    optimiser.step()
    assert not torch.equal(network[1].weight, before)


def test_mode_requires_grad_hooks_and_attributes_are_kept():
    network = plain_network()
    network[1].requires_grad_(False)
    network[4].train()
    network[4].mark = "mine"
    seen = []
    handle = network[1].register_forward_hook(lambda *_: seen.append("hook"))
    for to in ("group", "batch"):
        nw.convert(network, to, inplace=True)
        assert [network[1].training, network[4].training] == [False, True]
        assert [network[1].weight.requires_grad, network[4].weight.requires_grad] == [False, True]
        assert network[4].mark == "mine"
        network(images())
    assert seen == ["hook", "hook"]
    handle.remove()
    network(images())
    assert len(seen) == 2
    wide = nw.convert(network, "layer", example=images())
    assert not wide[1].weight.requires_grad


def test_a_shared_module_and_a_shared_weight_stay_shared():
    norm, twin = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
    twin.weight = norm.weight
    network = nn.Sequential(norm, nn.Conv2d(8, 8, 1), norm, twin).eval()
    x = torch.rand(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    for to in ("group", "layer"):
        away, report = convert_with_report(network, to, example=x)
        assert away[0] is away[2]
        assert away[3].weight is away[0].weight
        assert away[3].bias is not away[0].bias
        assert [layer.name for layer in report.layers] == ["0", "3"]
        back = nw.convert(away, "batch")
        assert back[0] is back[2]
        assert back[3].weight is back[0].weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype_and_device_are_kept_and_followed(dtype):
    network = plain_network().to(dtype)
    away = nw.convert(network, "layer", example=images().to(dtype))
    assert {parameter.dtype for parameter in away.parameters()} == {dtype}
    narrow = nw.convert(plain_network(), "group").to(dtype)
    back = nw.convert(narrow, "batch")
    assert {tensor.dtype for tensor in back.state_dict().values()} == {dtype, torch.int64}
    meta = nw.convert(nw.convert(plain_network().to("meta"), "group"), "batch")
    assert all(tensor.is_meta for tensor in meta.state_dict().values())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_the_way_back_survives_a_copy(copied):
    network = plain_network()
    away = copied(nw.convert(network, "group", calibrate=batches_for(network)))
    assert torch.equal(nw.convert(away, "batch")(images()), network(images()))


def test_the_converted_network_s_state_is_that_of_any_such_network():
    away = nw.convert(plain_network(), "group")
    assert list(away[1].state_dict()) == list(nn.GroupNorm(2, 4).state_dict())


def test_the_network_may_be_the_normaliser_itself():
    norm = nn.BatchNorm2d(8)
    away = nw.convert(norm, "group")
    assert type(norm) is nn.BatchNorm2d
    assert type(away) is nn.GroupNorm
    nw.convert(norm, "group", inplace=True)
    assert type(norm) is nn.GroupNorm


def test_subclass_behaviour_is_never_dropped():
    """#187298: trained to 0.82 F1, exported at 0.00."""

    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) + 1

    class Named(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)

    network = nn.Sequential(nn.BatchNorm2d(8), Own(8), Named(8)).eval()
    before = copy.deepcopy(network)
    with pytest.raises(ConversionError, match="  1: its class Own has a forward of its own"):
        nw.convert(network, "group", inplace=True)
    assert [type(module) for module in network] == [nn.BatchNorm2d, Own, Named]
    assert all(map(torch.equal, network.state_dict().values(), before.state_dict().values()))
    away = nw.convert(network, "group", names=["0", "2"])
    assert [type(module) for module in away] == [nn.GroupNorm, Own, nn.GroupNorm]
    back = nw.convert(away, "batch", names=lambda name, _: name != "1")
    assert [type(module) for module in back] == [nn.BatchNorm2d, Own, Named]


def test_other_ways_of_being_more_than_a_normaliser_are_refused_too():
    def patched():
        norm = nn.BatchNorm2d(8)
        norm.forward = lambda x: x
        return norm

    def parametrised():
        norm = nn.BatchNorm2d(8)
        parametrize.register_parametrization(norm, "weight", nn.Softplus())
        return norm

    def pruned():
        norm = nn.BatchNorm2d(8)
        prune.l1_unstructured(norm, "weight", 2)
        return norm

    def extended():
        norm = nn.BatchNorm2d(8)
        norm.register_buffer("gain", torch.ones(()))
        return norm

    reasons = {patched: "replaced", parametrised: "parametrized", pruned: "weight_", extended: "gain"}
    for make, reason in reasons.items():
        with pytest.raises(ConversionError, match=reason):
            nw.convert(nn.Sequential(make()), "group")


def test_instance_norm_is_never_converted_by_mistake():
    """apex #437."""
    network = nn.Sequential(nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.LayerNorm(4)).eval()
    away = nw.convert(network, "group")
    assert [type(module) for module in away] == [nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm]
    chosen = nw.convert(network, "group", of=("instance",))
    assert [type(module) for module in chosen] == [nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm]
    with pytest.raises(OptionError, match=r"its 1 are of the kinds instance: name these with of="):
        nw.convert(nn.Sequential(nn.InstanceNorm2d(8)), "group")


def test_layer_norm_takes_its_shape_or_says_that_it_is_one_group():
    network = plain_network()
    shaped, report = convert_with_report(network, "layer", example=images())
    assert shaped[1].normalized_shape == (4, 8, 8)
    assert report.layers[0].became == "LayerNorm((4, 8, 8))"
    group, report = convert_with_report(network, "layer")
    assert isinstance(group[1], nn.GroupNorm)
    assert group[1].num_groups == 1
    assert "as one group" in str(report)
    torch.testing.assert_close(group(images()), shaped(images()))
    assert nw.convert(group, "layer")[1].num_groups == 1  # it is one already
    many = nw.convert(group, "group")
    assert many[1].num_groups == 2
    # where the size varies it is one group too
    fully = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    two = [torch.rand(2, 3, 8, 8), torch.rand(2, 3, 9, 9)]
    varied = nw.convert(fully, "layer", calibrate=two)
    assert isinstance(varied[1], nn.GroupNorm)


def test_lossy_is_advised_where_it_would_help():
    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x) + 1

    with pytest.raises(ConversionError, match=r"without losing.*allow what is a loss with lossy=True"):
        nw.convert(plain_network(), "rms", example=images())
    for network, lossy in ((plain_network(), True), (nn.Sequential(Own(8)), False)):
        with pytest.raises(ConversionError, match=r"cannot become rms norm; .* names=:\n") as refused:
            nw.convert(network, "rms", lossy=lossy)  # sees no shape of a sample
        assert "loss" not in str(refused.value)


def test_what_would_be_lost_is_refused_and_may_be_allowed():
    network = plain_network()
    with pytest.raises(ConversionError, match="bias that is not zero, and RMS norm has none"):
        nw.convert(network, "rms", example=images())
    with pytest.raises(ConversionError, match="pass example="):
        nw.convert(network, "rms")
    away, report = convert_with_report(network, "rms", example=images(), lossy=True)
    assert "bias" in report.layers[0].lost[0]
    assert type(away[1]) is nn.RMSNorm

    wide = nw.convert(network, "layer", example=images())
    with torch.no_grad():
        wide[1].weight[0, 0, 0] += 1
    with pytest.raises(ConversionError, match="weight varies over space"):
        nw.convert(wide, "batch")
    assert nw.convert(wide, "batch", lossy=True)[1].weight[0] > network[1].weight[0]

    group = nn.Sequential(nn.GroupNorm(2, 4))
    with pytest.raises(ConversionError, match="no statistics"):
        nw.convert(group, "batch", of=("group",), example=torch.rand(2, 4, 3, 3))
    last = nn.Sequential(nn.LayerNorm(6))
    with pytest.raises(ConversionError, match="which are not"):
        nw.convert(last, "group", of=("layer",), example=torch.rand(2, 5, 6))
    assert type(nw.convert(last, "rms", of=("layer",))[0]) is nn.RMSNorm
    untracked = nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False))
    assert nw.convert(nw.convert(untracked, "group"), "batch")[0].running_mean is None


@pytest.mark.parametrize("options", [{"affine": False}, {"momentum": None}, {"track_running_stats": False}])
def test_the_options_of_batch_norm_come_back(options):
    network = nn.Sequential(nn.BatchNorm2d(8, **options))
    for to in ("group", "layer", "instance"):
        away = nw.convert(network, to, example=torch.rand(2, 8, 3, 3))
        assert (away[0].weight is None) == (network[0].weight is None)
        assert repr(nw.convert(away, "batch")) == repr(network)


def test_normwright_s_own_modules_keep_their_library_and_activation():
    network = nn.Sequential(nw.nn.BatchNorm2d(8, activation="relu")).eval()
    x = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    away = nw.convert(network, "group")
    assert type(away[0]) is nw.nn.GroupNorm
    assert away[0].activation == "relu"
    assert away(x).min() == 0
    assert torch.equal(nw.convert(away, "batch")(x), network(x))


def test_an_accelerated_network_computes_what_it_became():
    network = plain_network()
    expected = nw.convert(network, "group")(images())
    fast = nw.accelerate(network)
    away = nw.convert(fast, "group")
    torch.testing.assert_close(away(images()), expected)
    assert torch.equal(nw.convert(away, "batch")(images()), fast(images()))


def test_names_may_be_of_what_holds_normalisers():
    network = nn.Sequential(nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4)), nn.BatchNorm2d(4))
    away, report = convert_with_report(network, "group", names=["0"])
    assert [layer.name for layer in report.layers] == ["0.0", "0.1"]
    assert type(away[1]) is nn.BatchNorm2d


def test_converted_for_a_while_it_stays_of_its_library():
    frozen = nw.convert(plain_network(), "frozen")
    assert type(frozen[1]) is nw.nn.FrozenBatchNorm2d  # PyTorch has none
    assert type(nw.convert(frozen, "group")[1]) is nn.GroupNorm


def test_bad_calls():
    network = plain_network()
    for wrong, message in (
        ({"to": "bach"}, "did you mean 'batch'"),
        ({"to": "group", "names": ["77"]}, "unknown normaliser '77'"),
        ({"to": "group", "names": ["7"]}, "'7' must be a normaliser or hold one, but is a Flatten"),
        ({"to": "group", "names": "1"}, "names= must be names in a list"),
        ({"to": "group", "names": 1}, "names= must be names in a list .* is 1: write them"),
        ({"to": "group", "of": 1}, "of= must be names in a list"),
        ({"to": "group", "of": "batch"}, "of= must be names in a list"),
        ({"to": "group", "names": lambda *_: False}, "choose none of the network's 2"),
        ({"to": "group", "calibrate": images()}, "calibrate= must be an iterable of batches"),
    ):
        with pytest.raises(OptionError, match=message):
            nw.convert(network, **wrong)
    unlike = nn.Sequential(nn.Conv2d(1, 4, 3), nw.nn.FilterResponseNorm(4))
    why = "FilterResponseNorm becomes no other kind, since it leaves the mean"
    with pytest.raises(OptionError, match=why):
        nw.convert(unlike, "group")
    for kind in ("FilterResponseNorm", "filter_response", "whitening"):
        with pytest.raises(
            OptionError, match=f"of= must be of .* but holds '{kind}', which becomes no other"
        ):
            nw.convert(unlike, "group", of=(kind,))
    with pytest.raises(OptionError, match="must hold normalisers"):
        nw.convert(nn.Sequential(nn.Linear(2, 2)), "group")
    with pytest.raises(OptionError, match=r"must be a torch\.nn\.Module"):
        nw.convert("network", "group")


def failing(network):
    yield from batches_for(network)
    raise RuntimeError("the loader broke")


class Failing:
    def __init__(self, network):
        self.network = network

    def __iter__(self):
        return failing(self.network)


@pytest.mark.parametrize("inplace", [False, True])
def test_bad_batches_leave_the_network_as_it_was(inplace):
    network = plain_network()
    network[4].train()
    before = copy.deepcopy(network)
    random = torch.get_rng_state()
    poisoned = [*batches_for(network), (torch.full((4, 3, 10, 10), torch.nan), torch.zeros(4).long())]
    for batches, error, message in (
        ([], DataError, "at least one batch"),
        (iter(()), DataError, "at least one batch"),
        (Failing(network), RuntimeError, "the loader broke"),
        (failing(network), RuntimeError, "the loader broke"),
        (poisoned, DataError, "batch 4 .counted from 1. must give finite"),
        ([(torch.ones(4, 7),)], RuntimeError, "input"),
    ):
        with pytest.raises(error, match=message):
            nw.convert(network, "group", calibrate=batches, inplace=inplace)
        assert known(network) == known(before)
        assert all(map(torch.equal, network.state_dict().values(), before.state_dict().values()))
        assert [type(module) for module in network.modules()] == [type(m) for m in before.modules()]
    assert torch.equal(torch.get_rng_state(), random)


def test_the_report_is_plain_data():
    network = plain_network()
    _, report = convert_with_report(network, "group", calibrate=batches_for(network))
    json.dumps(dataclasses.asdict(report))
    assert str(report) == str(report.table())
    assert len(report.table().rows) == 2
    assert forward_of(network, batches_for(network)[0]).shape == (16, 3)


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("to", ["synchronised", "frozen", "renormalised"])
def test_the_kinds_of_batch_norm_become_one_another_exactly(to, momentum):
    network = plain_network()
    for index in (1, 4):
        network[index].momentum = momentum
    network.train()
    parameters = list(network.parameters())
    away, report = convert_with_report(network, to, calibrate=batches_for(network))
    assert all(layer.explained is None and not layer.lost for layer in report.layers)
    assert report.gap.difference_converted <= 1e-6
    back = nw.convert(away, "batch")
    assert known(back) == known(network)
    assert torch.equal(back.eval()(images()), network.eval()(images()))
    assert back[1].momentum == momentum
    nw.convert(network, to, inplace=True)
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))


def test_a_frozen_norm_takes_the_network_s_mode_when_it_is_one_no_more():
    frozen = nw.convert(plain_network(), "frozen")
    frozen.train()
    assert [frozen[1].training, frozen.training] == [False, True]
    before = frozen[1].running_mean.clone()
    frozen(images())
    assert torch.equal(frozen[1].running_mean, before)
    assert nw.convert(frozen, "batch")[1].training
    assert not nw.convert(frozen.eval(), "group")[1].training


def test_the_way_back_from_torch_s_synchronised_batch_norm():
    """#41081, open since 2020."""
    network = plain_network()
    theirs = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    with pytest.raises(ConversionError, match="how many axes of space its input has"):
        nw.convert(theirs, "batch")
    back = nw.convert(theirs, "batch", example=images())
    assert [type(back[index]) for index in (1, 4)] == [nn.BatchNorm2d] * 2
    assert known(back) == known(network)
    assert torch.equal(back(images()), network(images()))
    one = nn.Sequential(nn.SyncBatchNorm(4)).eval()
    assert type(nw.convert(one, "batch", example=torch.rand(3, 4))[0]) is nn.BatchNorm1d
    assert type(nw.convert(one, "batch", example=torch.rand(3, 4, 2, 2, 2))[0]) is nn.BatchNorm3d
    group = nw.convert(theirs, "group")
    assert type(nw.convert(group, "synchronised")[1]) is nn.SyncBatchNorm


def test_statistics_are_asked_for_where_they_are_needed():
    untracked = nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False))
    for to in ("frozen", "renormalised"):
        with pytest.raises(ConversionError, match="needs running statistics"):
            nw.convert(untracked, to)
    assert nw.convert(untracked, "synchronised")[0].running_mean is None
    group = nn.Sequential(nn.GroupNorm(2, 4)).eval()
    x = torch.rand(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    frozen = nw.convert(group, "frozen", of=("group",), calibrate=[x])
    assert type(frozen[0]) is nw.nn.FrozenBatchNorm2d
    assert float(frozen[0].running_mean.min()) > 0
    started = convert_with_report(group, "batch", of=("group",), example=x, lossy=True)[1]
    assert "no statistics" in started.layers[0].lost[0]


def test_what_nw_freeze_froze_is_to_be_unfrozen_first():
    network = nw.freeze(plain_network())
    with pytest.raises(ConversionError, match=r"frozen by nw\.freeze: call nw\.unfreeze first"):
        nw.convert(network, "group")
    assert type(nw.convert(nw.unfreeze(network), "group")[1]) is nn.GroupNorm


class FrozenBatchNorm2d(nn.Module):
    """As torchvision, detectron2 and Transformers have one each."""

    def __init__(self, channels, gain=1.0):
        super().__init__()
        self.gain = gain
        for index, name in enumerate(("weight", "bias", "running_mean", "running_var")):
            self.register_buffer(name, torch.linspace(0.5, 1.5, channels) + 0.1 * index)

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt() * self.gain
        shift = self.bias - self.running_mean * scale
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


def test_another_library_s_frozen_batch_norm_is_known_by_what_it_computes():
    network = nn.Sequential(FrozenBatchNorm2d(4))
    x = torch.randn(4, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    away = nw.convert(network, "batch")
    assert type(away[0]) is nn.BatchNorm2d
    assert away[0].training
    torch.testing.assert_close(away.eval()(x), network(x))
    for to in ("batch", "group"):
        back = nw.convert(nw.convert(network, to), "frozen")
        assert type(back[0]) is FrozenBatchNorm2d
        assert list(back.state_dict()) == list(network.state_dict())
        assert torch.equal(back(x), network(x))
    fitted = convert_with_report(network, "group", calibrate=[x])[1]
    assert fitted.gap.difference_calibrated < fitted.gap.difference_converted
    with pytest.raises(ConversionError, match="not one whose formula is known here"):
        nw.convert(nn.Sequential(FrozenBatchNorm2d(4, gain=2.0)), "batch")


def test_torch_s_transformer_layers_call_what_their_norms_became():
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, dropout=0.0)
    network = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    away = nw.convert(network, "rms", of=("layer",))
    with torch.no_grad():
        torch.testing.assert_close(away.eval()(x), away.train()(x))
        back = nw.convert(away, "layer")
        assert torch.equal(back.eval()(x), network.eval()(x))
    assert [vars(one).keys() for one in back.layers] == [vars(one).keys() for one in network.layers]


@pytest.mark.parametrize("names", [None, ["layers.1"]], ids=["all", "the second layer's"])
def test_torch_s_transformer_hands_no_nested_tensors_to_what_its_norms_became(names):
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, dropout=0.0)
    network = nn.TransformerEncoder(layer, 2)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    away = nw.convert(network, "rms", of=("layer",), names=names)
    with torch.no_grad():
        one, other = (away.train(mode)(x, src_key_padding_mask=padding) for mode in (False, True))
    torch.testing.assert_close(one[~padding], other[~padding])
    back = nw.convert(away, "layer")
    assert vars(back).keys() == vars(network).keys()
    assert back.use_nested_tensor is network.use_nested_tensor is True


def test_a_part_that_quantisation_reads_statistics_of_stays_of_the_batch_kinds():
    qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    network = nn.Sequential(torch.ao.nn.intrinsic.qat.ConvBn2d(1, 8, 3, qconfig=qconfig))
    with pytest.raises(ConversionError, match=r"0\.bn: it is a part of a ConvBn2d, which reads its running"):
        nw.convert(network, "group")
    nw.convert(network, "frozen")(torch.randn(2, 1, 5, 5))


@pytest.mark.parametrize("to", ["group", "layer", "frozen"])
def test_a_network_that_fails_once_converted_is_taken_back(to):
    class Particular(nn.Sequential):
        def forward(self, x):
            if type(self[1]) is not nn.BatchNorm2d:
                raise RuntimeError("not with that norm")
            return super().forward(x)

    network = Particular(*plain_network())
    network.train()
    before = copy.deepcopy(network)
    parameters, buffers = list(network.parameters()), list(network.buffers())
    with pytest.raises(RuntimeError, match="not with that norm"):
        nw.convert(network, to, example=images(), inplace=True)
    assert known(network) == known(before)
    assert all(map(torch.equal, network.state_dict().values(), before.state_dict().values()))
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))
    assert all(a is b for a, b in zip(buffers, network.buffers(), strict=True))


class Counting(nn.Module):
    """Counts its calls in a buffer that each call puts another tensor in the place of."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return self.norm(x)


@pytest.mark.parametrize("given", ["example", "calibrate"])
def test_looking_at_a_network_leaves_it_the_buffers_that_its_forward_replaces(given):
    network = Counting()
    calls = network.calls
    batches = {"example": images(), "calibrate": [images()]}[given]
    nw.convert(network, "group", inplace=True, **{given: batches})
    assert network.calls is calls
    assert calls == 0


def test_buffers_that_a_checkpoint_leaves_out_stay_out_of_it_there_and_back():
    network = nn.Sequential(nn.BatchNorm2d(3))
    count = network[0].num_batches_tracked
    network[0].register_buffer("num_batches_tracked", count, persistent=False)
    for away in ("frozen", "group"):
        back = nw.convert(nw.convert(network, away), "batch")
        assert list(back.state_dict()) == list(network.state_dict())


def test_the_way_back_says_what_its_statistics_are_worth():
    def way_back(network):
        return convert_with_report(network, "batch")[1].layers[0].notes

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    trained = copy.deepcopy(network)
    trained(torch.randn(4, 3, 8, 8))
    group = nw.convert(trained, "group")
    assert "with the statistics of before" in way_back(group)
    # What a script does with a checkpoint of the converted network: the statistics are not in it.
    loaded = nw.convert(network, "group")
    loaded.load_state_dict(group.state_dict())
    assert "with statistics that never saw a batch: recalibrate it" in way_back(loaded)
    with torch.no_grad():
        group[1].weight.mul_(2)
    assert "with the statistics of before it was trained further: recalibrate it" in way_back(group)


def test_a_norm_that_was_frozen_takes_the_mode_of_what_holds_it():
    """A wrapper is in training mode when it is made, whatever it wraps."""
    wrapped = nn.DataParallel(plain_network().eval())
    assert wrapped.training
    x = images()
    back = nw.convert(nw.convert(wrapped, "frozen"), "batch")
    assert torch.equal(back(x), wrapped(x))
    assert not back.module[1].training


def test_shapes_are_seen_on_meta_and_outputs_are_not_compared():
    network = plain_network().to("meta")
    away, report = convert_with_report(network, "layer", example=images().to("meta"))
    assert isinstance(away[1], nn.LayerNorm)
    assert report.gap is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ghost_size": 0}, r"ghost_size= must be at least 1"),
        ({"ghost_size": 2.5}, r"ghost_size= must be at least 1, and whole"),
        ({"groups": 2.5}, r"groups= must be at least 1, and whole"),
    ],
    ids=str,
)
def test_counts_that_are_none(options, match):
    with pytest.raises(OptionError, match=match):
        nw.convert(plain_network(), "ghost" if "ghost_size" in options else "group", **options)


def test_a_network_that_is_scripted_is_told_so():
    with pytest.raises(OptionError, match=r"torch.jit, which hides"):
        nw.convert(_scripted(plain_network()), "group")


def _scripted(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that it is of yesterday
        return torch.jit.script(network)


class LlamaRMSNorm(nn.Module):
    """A normaliser by its name alone, as Transformers has one for each family."""


@pytest.mark.parametrize(
    ("layer", "why"),
    [(LlamaRMSNorm(), "LlamaRMSNorm derives from none of torch.nn. Put"), (nn.ReLU(), "a functional call")],
)
def test_a_network_without_a_known_normaliser_is_told_what_stands_there(layer, why):
    with pytest.raises(OptionError, match=why):
        nw.convert(nn.Sequential(nn.Linear(2, 2), layer), "group")
