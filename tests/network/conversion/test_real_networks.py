"""Networks that other people wrote, there and back: the same outputs in inference, to the bit."""

from __future__ import annotations

import collections

import pytest
import torch
from same import assert_close, randomise
from torch import nn

import normwright as nw
from normwright.network import convert_with_report

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def pixels(*shape):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))


def resnet():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 16, 32], depths=[1, 2, 1])
    return transformers.ResNetForImageClassification(config), pixels(3, 32, 32), 2 + 3 * 4 + 2


def regnet():
    transformers = pytest.importorskip("transformers")
    config = transformers.RegNetConfig(
        embedding_size=8, hidden_sizes=[16, 16], depths=[1, 2], groups_width=8, layer_type="y"
    )
    return transformers.RegNetForImageClassification(config), pixels(3, 32, 32), 1 + 3 * 3 + 2


def mobilenet():
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(depth_multiplier=0.25, image_size=32)
    return transformers.MobileNetV2ForImageClassification(config), pixels(3, 32, 32), None


def densenet():
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2, 2), bn_size=2)
    return network, pixels(1, 32, 32), None


def unet():
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.UNet(3, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=1, norm="batch")
    return network, pixels(1, 8, 8, 8), None


def dynunet(norm):
    nets = pytest.importorskip("monai.networks.nets")
    return nets.DynUNet(
        2, 1, 2, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[4, 8, 16],
        norm_name=norm,
    )  # fmt: skip


BATCH = {"resnet": resnet, "regnet": regnet, "mobilenet": mobilenet, "densenet": densenet, "unet": unet}
BATCH["dynunet"] = lambda: (dynunet("batch"), pixels(1, 16, 16), None)


def made(make):
    network, x, count = make()
    # PyTorch's depthwise convolutions take a hundred times as long in float64.
    return randomise(network).float().eval(), x, count


def outputs(network, x):
    with torch.no_grad():
        y = network(x)
    return y if isinstance(y, torch.Tensor) else y.logits


def kinds(network):
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return collections.Counter(type(m).__name__ for m in network.modules() if isinstance(m, norms))


@pytest.mark.parametrize("to", ["group", "layer", "frozen", "synchronised"])
@pytest.mark.parametrize("name", BATCH)
def test_every_batch_norm_there_and_back(name, to):
    network, x, count = made(BATCH[name])
    before = kinds(network)
    example = x if to == "layer" else None
    away, report = convert_with_report(network, to, example=example)
    assert all(layer.became for layer in report.layers)
    assert len(report.layers) == sum(before.values())
    assert count is None or len(report.layers) == count
    assert not set(kinds(away)) & set(before)
    there = outputs(away, x)
    expected = outputs(network, x)
    assert torch.isfinite(there).all()
    if to in ("group", "layer"):
        assert not torch.allclose(there, expected)
    back = nw.convert(away, "batch")
    assert kinds(back) == before
    assert torch.equal(outputs(back, x), expected)
    assert list(back.state_dict()) == list(network.state_dict())


def test_a_network_of_instance_norm():
    network, x, _ = made(lambda: (dynunet("instance"), pixels(1, 16, 16), None))
    before = kinds(network)
    expected = outputs(network, x)
    with pytest.raises(ValueError, match="kinds instance"):
        nw.convert(network, "group")
    for to in ("group", "layer", "batch"):
        options = {"calibrate": [x]} if to == "batch" else {"example": x}
        away, report = convert_with_report(network, to, of=("instance",), **options)
        assert all(layer.became for layer in report.layers)
        assert torch.isfinite(outputs(away, x)).all()
        back = nw.convert(away, "instance")
        assert kinds(back) == before
        assert torch.equal(outputs(back, x), expected)
    # as many groups as channels are instance norm
    single = nw.convert(network, "group", names=["input_block.norm1"], groups=2)
    assert single.get_submodule("input_block.norm1").num_groups == 2


def test_a_network_of_group_norm():
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.SegResNet(
        2, 8, 1, 2, blocks_down=(1, 1), blocks_up=(1,), norm=("GROUP", {"num_groups": 4})
    )
    randomise(network).float().eval()
    x = pixels(1, 16, 16)
    before, expected = kinds(network), outputs(network, x)
    for to in ("instance", "layer", "batch"):
        options = {"calibrate": [x]} if to == "batch" else {"example": x}
        away, report = convert_with_report(network, to, of=("group",), **options)
        assert all(layer.became for layer in report.layers)
        assert kinds(away) != before
        back = nw.convert(away, "group")
        assert torch.equal(outputs(back, x), expected)
        assert [m.num_groups for m in back.modules() if isinstance(m, nn.GroupNorm)] == [4] * sum(
            before.values()
        )


@pytest.mark.parametrize("to", ["synchronised", "renormalised", "frozen"])
def test_what_is_the_same_in_inference_is_so_in_a_resnet(to):
    network, x, _ = made(resnet)
    network.double()
    away = nw.convert(network, to)
    assert_close(outputs(away, x.double()), outputs(network, x.double()))


def test_a_resnet_is_calibrated():
    network, x, _ = made(resnet)
    _, report = convert_with_report(
        network, "group", calibrate=[x, x.flip(0)], names=lambda n, _: "embed" in n
    )
    assert len(report.layers) == 1
    assert report.gap.difference_calibrated < report.gap.difference_converted


def test_the_frozen_batch_norms_of_detr():
    detr = pytest.importorskip("transformers.models.detr.modeling_detr")
    network = nn.Sequential(nn.Conv2d(3, 8, 3), detr.DetrFrozenBatchNorm2d(8), nn.ReLU())
    randomise(network).float().eval()
    x = pixels(3, 8, 8)
    away, report = convert_with_report(network, "group", calibrate=[x])
    assert report.layers[0].became == "GroupNorm(4, 8)"
    back = nw.convert(away, "frozen")
    assert type(back[1]) is detr.DetrFrozenBatchNorm2d
    assert torch.equal(back(x), network(x))
