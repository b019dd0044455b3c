"""Networks that other people wrote, shrunk in width and input; their structure is theirs."""

from __future__ import annotations

import pytest
import torch
from seen_inputs import Inputs, assert_statistics, joined
from torch import nn

import normwright as nw
from normwright.errors import OptionError
from normwright.network import find_normalisers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(network):
    """Random weights come with the network; statistics are drawn as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2, generator=generator)
    return network.eval()


def check(network, batches, count):
    """Every tracked normaliser gets the moments of what it was given; undo is exact. The number is known."""
    randomise(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tracked = {
        name: module
        for name, module in find_normalisers(network).items()
        if getattr(module, "track_running_stats", False)
    }
    with Inputs(tracked) as inputs:
        handle = nw.recalibrate(network, batches)
    assert len(tracked) == count
    assert [layer.name for layer in handle.layers if not layer.reason] == list(tracked)
    for name, module in tracked.items():
        assert_statistics(module, *joined(inputs.calls[name]), name)
    handle.undo()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    return handle


def images(*shape):
    return [draw(n, *shape, seed=n) for n in (3, 2)]


def pixels(*shape):
    return [{"pixel_values": batch, "labels": torch.zeros(len(batch)).long()} for batch in images(*shape)]


def classifier(name, **settings):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**settings)
    return getattr(transformers, f"{name}ForImageClassification")(config)


def test_resnet():
    network = classifier("ResNet", embedding_size=8, hidden_sizes=[16, 16, 32, 32], depths=[3, 4, 6, 3])
    # ResNet-50's 53, of which 4 in shortcuts; the second stage keeps its width here, but not its size.
    check(network, pixels(3, 64, 64), 53)


def test_mobilenet_v2():
    # 17 inverted residuals of 3 (the first has no expansion), the stem's and the head's
    check(classifier("MobileNetV2", depth_multiplier=0.35), pixels(3, 64, 64), 52)


def test_efficientnet():
    network = classifier("EfficientNet", width_coefficient=0.25, depth_coefficient=0.3, hidden_dim=320)
    # 1 + 1 + 1 + 1 + 1 + 2 + 1 blocks of 3 (the first has no expansion), the stem's and the head's
    check(network, pixels(3, 64, 64), 3 * 8 - 1 + 2)


def test_regnet():
    network = classifier(
        "RegNet", embedding_size=8, hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 2, 1], groups_width=8
    )
    # the stem, 3 in each of 5 layers, 4 shortcuts
    check(network, pixels(3, 64, 64), 1 + 3 * 5 + 4)


def test_segformer():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2],
    )
    network = transformers.SegformerForSemanticSegmentation(config)
    batches = [{"pixel_values": batch} for batch in images(3, 64, 64)]
    # layer norm throughout, but for one batch norm in the head
    handle = check(network, batches, 1)
    assert {layer.reason for layer in handle.layers} == {"", "keeps no statistics"}


def test_convnext_has_nothing_to_estimate():
    network = classifier("ConvNext", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])
    with pytest.raises(OptionError, match="keeps no statistics"):
        nw.recalibrate(network, pixels(3, 32, 32))


def test_detr_s_backbone_is_frozen():
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, backbone=None, use_pretrained_backbone=False,
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=4,
    )  # fmt: skip
    network = transformers.DetrForObjectDetection(config).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(OptionError, match="each is left alone"):
        nw.recalibrate(network, [{"pixel_values": draw(2, 3, 64, 64)}])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def monai(name, *args, **settings):
    return getattr(pytest.importorskip("monai.networks.nets"), name)(*args, **settings)


def test_monai_unet():
    network = monai("UNet", 3, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=2, norm="batch")
    check(network, images(1, 16, 16, 16), 9)


def test_monai_dynunet_with_batch_norm():
    network = monai(
        "DynUNet", 2, 1, 2, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2],
        filters=[4, 8, 8], norm_name="batch",
    )  # fmt: skip
    # two a block: 3 down, 2 up
    check(network, images(1, 16, 16), 10)


def test_monai_segresnet_has_group_norm():
    network = monai("SegResNet", 2, init_filters=8)
    with pytest.raises(OptionError, match="keeps no statistics"):
        nw.recalibrate(network.eval(), images(1, 16, 16))


def test_monai_densenet():
    network = monai("DenseNet121", 2, 1, 2, init_features=8, growth_rate=4)
    # the stem, 2 in each of 6 + 12 + 24 + 16 layers, 3 transitions, the last
    check(network, images(1, 32, 32), 1 + 2 * 58 + 3 + 1)


def test_monai_efficientnet():
    network = monai("EfficientNetBN", "efficientnet-b0", False, False, 2, 3, 2)
    # 16 blocks of 3 (the first has no expansion), the stem's and the head's
    check(network, images(3, 32, 32), 49)


def test_monai_highresnet():
    network = monai("HighResNet", 2, 1, 2, norm_type="batch", layer_params=(
        {"name": "conv_0", "n_features": 4, "kernel_size": 3},
        {"name": "res_1", "n_features": 4, "kernels": (3, 3), "repeat": 1},
        {"name": "res_2", "n_features": 8, "kernels": (3, 3), "repeat": 1},
        {"name": "conv_1", "n_features": 8, "kernel_size": 1},
        {"name": "conv_2", "kernel_size": 1},
    ))  # fmt: skip
    check(network, images(1, 16, 16), len([m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]))


def test_monai_vnet():
    network = monai("VNet", spatial_dims=2, in_channels=1, out_channels=2)
    check(network, images(1, 32, 32), len([m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]))
