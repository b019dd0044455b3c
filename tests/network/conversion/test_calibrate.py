"""What the fit finds, and what the report says of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small import batches_for, images, plain_network
from torch import nn
from torch.nn import functional as F

import normwright as nw
from normwright.errors import OptionError
from normwright.network import ConversionReport, Gap, convert_with_report
from normwright.network.conversion.fit import CoMoments


def test_weight_and_bias_are_those_of_least_squares():
    """NumPy's solver on all batches laid end to end, in float64, for the first layer; cast once."""
    network = plain_network()
    batches = batches_for(network)
    away = nw.convert(network, "group", calibrate=batches, groups=2)
    with torch.no_grad():
        x = network[0](torch.cat([batch[0] for batch in batches]))
    targets = network[1](x).double().detach().movedim(1, 0).flatten(1).numpy()
    standard = F.group_norm(x.double(), 2).movedim(1, 0).flatten(1).numpy()
    for channel in range(4):
        design = np.stack([standard[channel], np.ones_like(standard[channel])], 1)
        weight, bias = np.linalg.lstsq(design, targets[channel], rcond=None)[0]
        # the targets went through float32 here, once per element; the fit through float64
        np.testing.assert_allclose(away[1].weight[channel].item(), weight, rtol=2.0**-22)
        np.testing.assert_allclose(away[1].bias[channel].item(), bias, rtol=2.0**-22, atol=2.0**-22)


class Standardising(nn.Module):
    """Writes into the batch that it is given, which the fit reads again and again."""

    def __init__(self, in_place):
        super().__init__()
        self.network, self.in_place = plain_network(), in_place

    def forward(self, x):
        return self.network(x.sub_(0.5).div_(2.0) if self.in_place else (x - 0.5) / 2.0)


def test_a_network_that_writes_into_its_batch_is_fitted_as_any_other():
    batches = batches_for(None)
    fitted = [
        convert_with_report(Standardising(in_place), "group", calibrate=batches, example=batches[0][0])
        for in_place in (True, False)
    ]
    (one, report), (other, expected) = fitted
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert report.gap == expected.gap
    assert torch.equal(batches[0][0], batches_for(None)[0][0])


def test_a_later_layer_is_fitted_to_what_the_fitted_ones_give_it():
    network = plain_network()
    batches = batches_for(network)
    away = nw.convert(network, "group", calibrate=batches)
    with torch.no_grad():
        x = torch.cat([batch[0] for batch in batches]).double()
        after, before = copy.deepcopy(away).double(), copy.deepcopy(network).double()
        standard = F.group_norm(after[:4](x), after[4].num_groups).movedim(1, 0).flatten(1)
        targets = before[:5](x).movedim(1, 0).flatten(1)
        residual = after[4].weight[:, None] * standard + after[4].bias[:, None] - targets
    size = standard.norm(dim=1) * targets.norm(dim=1)
    # The normal equations: the residual is orthogonal to both columns, up to the float32 forward.
    assert float(((residual * standard).sum(1) / size).abs().max()) <= 1e-6
    assert float((residual.mean(1) / targets.std(1)).abs().max()) <= 1e-6


def test_co_moments_do_not_cancel():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3, 1000)) + 1e6
    t = 2 * x - 2e6 + draw.normal(size=(3, 1000))
    moments = CoMoments()
    for part in range(0, 1000, 300):
        moments.add(torch.tensor(x[:, part : part + 300]), torch.tensor(t[:, part : part + 300]))
    expected = [np.polyfit(a - a.mean(), b, 1)[0] for a, b in zip(x, t, strict=True)]
    slope = moments.slope(torch.ones(3, dtype=torch.float64), through_origin=False)
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-9)


def test_batches_may_be_cut_and_ordered_in_any_way():
    network = plain_network()
    whole = [(torch.cat([batch[0] for batch in batches_for(network)]), torch.arange(48) % 3)]
    one = nw.convert(network, "group", calibrate=whole)
    other = nw.convert(network, "group", calibrate=list(reversed(batches_for(network))))
    once = nw.convert(network, "group", calibrate=iter(batches_for(network)))
    for first, second in ((one, other), (one, once)):
        for name, value in first.state_dict().items():
            torch.testing.assert_close(second.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_the_report_measures_before_and_after():
    network = plain_network()
    batches = [(x, network(x).argmax(1)) for x, _ in batches_for(network)]
    away, report = convert_with_report(network, "layer", calibrate=batches)
    plain, unfitted = convert_with_report(network, "layer", example=batches[0][0])
    gap = report.gap
    assert (gap.batches, gap.samples) == (3, 48)
    assert gap.metric == 1.0
    right = torch.cat([away(x).argmax(1) == y for x, y in batches]).double().mean()
    assert gap.metric_calibrated == pytest.approx(float(right))
    assert gap.difference_calibrated < 0.2 * gap.difference_converted
    assert all(0.9 < layer.explained <= 1 for layer in report.layers)
    with torch.no_grad():
        old, new = (one(batches[0][0]).double() for one in (network, plain))
    expected = float((new - old).norm() / old.norm())
    assert unfitted.gap.difference_converted == pytest.approx(expected)
    assert unfitted.gap.metric is None
    assert "Metric on the same samples: 1.0000 before" in str(report)


def test_a_metric_of_one_s_own_and_another_call():
    network = plain_network()
    batches = [{"pixels": x, "wanted": torch.ones(16)} for x, _ in batches_for(network)]
    with pytest.raises(OptionError, match="call the network by forward_fn="):
        nw.convert(network, "group", calibrate=batches)
    report = convert_with_report(
        network, "group", calibrate=batches, forward_fn=lambda network, batch: network(batch["pixels"])
    )[1]
    assert report.gap.metric is None
    pairs = batches_for(network)
    report = convert_with_report(network, "group", calibrate=pairs, metric=lambda y, _: float(y.mean()))[1]
    expected = torch.cat([network(x) for x, _ in pairs]).detach().mean()
    assert report.gap.metric == pytest.approx(float(expected), rel=1e-5)


def test_group_norm_gets_statistics_and_becomes_batch_norm():
    network = nw.convert(plain_network(), "group", calibrate=batches_for(None))
    for norm in (network[1], network[4]):
        norm.__dict__.pop("_converted_from")  # one that nobody converted
    batches = batches_for(network)
    away, report = convert_with_report(network, "batch", of=("group",), calibrate=batches)
    with torch.no_grad():
        x = network[0](torch.cat([batch[0] for batch in batches])).double()
    torch.testing.assert_close(away[1].running_mean.double(), x.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    variance = x.var((0, 2, 3), correction=0)
    torch.testing.assert_close(away[1].running_var.double(), variance, rtol=1e-5, atol=0)
    assert report.gap.difference_calibrated < report.gap.difference_converted
    assert torch.equal(nw.convert(away, "group")(images()), network(images()))


def test_in_place_it_is_the_same_and_runs_a_copy():
    network = plain_network()
    expected = nw.convert(network, "group", calibrate=batches_for(network))
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1) or None)
    parameters = list(network.parameters())
    assert nw.convert(network, "group", calibrate=batches_for(network), inplace=True) is network
    assert all(map(torch.equal, network.state_dict().values(), expected.state_dict().values()))
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))


@torch.no_grad()  # PyTorch takes no gradient through such weights
def test_a_network_that_was_made_in_inference_mode_is_calibrated_in_place():
    """Its tensors may be written to in that mode alone."""
    with torch.inference_mode():
        network = copy.deepcopy(plain_network())
    assert network[1].weight.is_inference()
    batches = batches_for(network)
    expected = nw.convert(plain_network(), "group", calibrate=batches)
    assert nw.convert(network, "group", calibrate=batches, inplace=True) is network
    assert torch.equal(network(images()), expected(images()))
    nw.convert(network, "batch", inplace=True)
    assert torch.equal(network(images()), plain_network()(images()))


@pytest.mark.parametrize("to", ["layer", "instance"])
def test_buffers_that_were_made_in_inference_mode_are_put_back(to):
    with torch.inference_mode():
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)).eval()
    assert nw.convert(network, to, of=("group",), example=images(), inplace=True) is network
    assert not isinstance(network[2], nn.GroupNorm)


def test_a_layer_that_is_called_twice_is_fitted_to_both():
    norm = nn.BatchNorm2d(8)
    network = nn.Sequential(norm, nn.Conv2d(8, 8, 1), norm)
    x = 2 * torch.randn(8, 8, 5, 5, generator=torch.Generator().manual_seed(0)) + 1
    network(x)
    away, report = convert_with_report(network.eval(), "group", calibrate=[x])
    with torch.no_grad():
        unfitted = nw.convert(network, "group")
        standard = [F.group_norm(part, away[0].num_groups) for part in (x, unfitted[1](unfitted[0](x)))]
        targets = [network[0](x), network(x)]
    columns, wanted = (torch.cat(parts).movedim(1, 0).flatten(1).double() for parts in (standard, targets))
    slope = np.polyfit(columns[0].numpy(), wanted[0].numpy(), 1)[0]
    assert away[0].weight[0].item() == pytest.approx(slope, rel=1e-5)
    assert "called 2 times: the later inputs moved with the fit" in report.layers[0].notes


def test_a_channel_without_variation_keeps_its_weight():
    network = nn.Sequential(nn.BatchNorm2d(4)).eval()
    with torch.no_grad():
        network[0].weight.fill_(1.5)
        network[0].bias.fill_(0.25)
    x = torch.randn(4, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0
    away = nw.convert(network, "instance", calibrate=[x])
    assert away[0].weight[2] == 1.5
    torch.testing.assert_close(away(x)[:, 2], network(x)[:, 2])


def test_a_layer_that_no_batch_reaches_is_named():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.used(x)

    x = torch.randn(4, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    report = convert_with_report(Branch().eval(), "group", calibrate=[x])[1]
    assert [layer.explained is None for layer in report.layers] == [False, True]
    assert "not fitted: no batch reaches it" in report.layers[1].notes


def test_without_weight_and_bias_there_is_nothing_to_fit():
    network = nn.Sequential(nn.BatchNorm2d(4, affine=False)).eval()
    x = torch.randn(4, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    away, report = convert_with_report(network, "group", calibrate=[x])
    assert away[0].weight is None
    assert report.layers[0].explained < 1


def test_the_network_trains_on_in_its_own_mode_and_dropout_sleeps_meanwhile():
    network = nn.Sequential(nn.Dropout(0.5), *plain_network()).train()
    away = nw.convert(network, "group", calibrate=batches_for(network))
    assert all(module.training for module in away.modules())
    asleep = nw.convert(plain_network(), "group", calibrate=batches_for(network))
    assert all(map(torch.equal, away.state_dict().values(), asleep.state_dict().values()))


def test_a_weight_that_two_share_is_left_unfitted():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    network[2].weight = network[0].weight
    x = torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(0)) + 1
    away, report = convert_with_report(network.eval(), "group", calibrate=[x])
    assert [layer.explained is None for layer in report.layers] == [True, True, False]
    assert "not fitted: another module has its weight or bias too" in report.layers[0].notes
    assert torch.equal(away[0].weight, network[0].weight)


def test_the_report_says_where_the_fit_did_harm():
    gap = Gap(1, 8, None, None, None, 0.5, 0.6)
    assert "further away" in str(ConversionReport("instance", (), gap))
    better = Gap(1, 8, None, None, None, 0.6, 0.5)
    assert "further away" not in str(ConversionReport("instance", (), better))


def test_a_compiled_network_is_calibrated():
    """Compiled code calls no hook, by which the inputs are seen."""
    network = plain_network().eval()
    batches = batches_for(network)
    expected = nw.convert(network, "group", calibrate=batches)
    compiled = torch.compile(network, backend="eager")
    with torch.no_grad():
        compiled(batches[0][0])
    away, report = convert_with_report(compiled, "group", calibrate=batches)
    assert torch.equal(away._orig_mod[1].weight, expected[1].weight)
    assert report.gap.difference_calibrated < report.gap.difference_converted


def test_a_network_on_meta_has_nothing_to_be_fitted_to():
    with pytest.raises(OptionError, match=r"'0\.weight' is on the device meta"):
        nw.convert(plain_network().to("meta"), "group", calibrate=[images()])
