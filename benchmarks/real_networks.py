"""Networks of Transformers and MONAI with random weights: as they come, or shrunk for tests.

Shrunk is narrower and with a smaller input; MobileNetV2, both EfficientNets, DenseNet121, HighResNet and VNet
keep all their blocks, the others one or two a stage.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@dataclass(frozen=True)
class Real:
    """A network as its library initialises it, and an example."""

    network: nn.Module
    example: Tensor


def _images(batch: int, channels: int, *space: int) -> Tensor:
    return torch.randn(batch, channels, *space, generator=torch.Generator().manual_seed(1))


def _transformers(model: str, config: str, example: Tensor, settings: dict[str, Any]) -> Real:
    import transformers

    network: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**settings))
    return Real(network, example)


def resnet(*, small: bool) -> Real:
    """ResNet-50."""
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 16, 32, 32], "depths": [1] * 4} if small else {}
    example = _images(2, 3, 48, 48) if small else _images(1, 3, 224, 224)
    return _transformers("ResNetForImageClassification", "ResNetConfig", example, sizes)


def mobilenet(*, small: bool) -> Real:
    """MobileNetV2."""
    sizes = {"depth_multiplier": 0.25, "image_size": 64} if small else {}
    example = _images(2, 3, 64, 64) if small else _images(1, 3, 224, 224)
    return _transformers("MobileNetV2ForImageClassification", "MobileNetV2Config", example, sizes)


def efficientnet(*, small: bool) -> Real:
    """EfficientNet-B0."""
    widths = (0.25, 0.3, 320, 64) if small else (1.0, 1.0, 1280, 224)
    names = ("width_coefficient", "depth_coefficient", "hidden_dim", "image_size")
    example = _images(2, 3, 64, 64) if small else _images(1, 3, 224, 224)
    sizes = dict(zip(names, widths, strict=True))
    return _transformers("EfficientNetForImageClassification", "EfficientNetConfig", example, sizes)


def regnet(*, small: bool) -> Real:
    """RegNetY-040."""
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 2, 1], "groups_width": 8}
    example = _images(2, 3, 64, 64) if small else _images(1, 3, 224, 224)
    return _transformers("RegNetForImageClassification", "RegNetConfig", example, sizes if small else {})


def segformer(*, small: bool) -> Real:
    """SegFormer-B0."""
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2]}
    sizes["decoder_hidden_size"] = 16  # type: ignore[assignment]
    example = _images(2, 3, 64, 64) if small else _images(1, 3, 256, 256)
    model = "SegformerForSemanticSegmentation"
    return _transformers(model, "SegformerConfig", example, sizes if small else {})


def convnext(*, small: bool) -> Real:
    """ConvNeXt-T, which has no batch norm."""
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4} if small else {}
    example = _images(2, 3, 64, 64) if small else _images(1, 3, 224, 224)
    return _transformers("ConvNextForImageClassification", "ConvNextConfig", example, sizes)


def detr(*, small: bool) -> Real:
    """DETR with a ResNet of Transformers as its backbone, whose norms DETR freezes."""
    import transformers

    widths: dict[str, Any] = {"out_features": ["stage4"]}
    if small:
        widths |= {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4}
    backbone = transformers.ResNetConfig(**widths)
    names = ("encoder_ffn_dim", "decoder_ffn_dim")
    sizes: dict[str, Any] = {
        **dict.fromkeys(names, 16), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 5,
    }  # fmt: skip
    settings: dict[str, Any] = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
    }
    settings |= {"backbone_config": backbone, **(sizes if small else {})}
    example = _images(1, 3, 64, 64) if small else _images(1, 3, 256, 256)
    return _transformers("DetrModel", "DetrConfig", example, settings)


def unet(*, small: bool) -> Real:
    """UNet in three dimensions with batch norm."""
    from monai.networks.nets.unet import UNet

    channels = (4, 8, 16) if small else (16, 32, 64, 128)
    strides = (2,) * (len(channels) - 1)
    network = UNet(3, 1, 2, channels=channels, strides=strides, num_res_units=2, norm="batch")
    return Real(network, _volume(small))


def dynunet(*, small: bool) -> Real:
    """DynUNet in three dimensions with batch norm."""
    from monai.networks.nets.dynunet import DynUNet

    filters = [4, 8, 16] if small else [16, 32, 64]
    network = DynUNet(
        3, 1, 2, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=filters,
        norm_name="batch",
    )  # fmt: skip
    return Real(network, _volume(small))


def segresnet(*, small: bool) -> Real:
    """SegResNet in three dimensions with batch norm."""
    from monai.networks.nets.segresnet import SegResNet

    blocks: dict[str, Any] = {"blocks_down": (1, 1, 1), "blocks_up": (1, 1)} if small else {}
    return Real(SegResNet(3, 8, 1, 2, norm="batch", **blocks), _volume(small))


def densenet(*, small: bool) -> Real:
    """DenseNet121."""
    from monai.networks.nets.densenet import DenseNet121

    sizes: dict[str, Any] = {"init_features": 8, "growth_rate": 4} if small else {}
    return Real(DenseNet121(2, 3, 4, **sizes), _images(2, 3, 64, 64) if small else _images(1, 3, 224, 224))


def monai_efficientnet(*, small: bool) -> Real:
    """EfficientNet-B0."""
    from monai.networks.nets.efficientnet import EfficientNetBN

    network = EfficientNetBN(
        "efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=3, num_classes=4
    )
    return Real(network, _images(2, 3, 64, 64) if small else _images(1, 3, 224, 224))


def highresnet(*, small: bool) -> Real:
    """HighResNet."""
    from monai.networks.nets.highresnet import HighResNet

    # dilations up to 4: the smallest volume that is not all padding to them
    return Real(HighResNet(3, 1, 2, norm_type="batch"), _images(1, 1, *(3 * [9 if small else 32])))


def vnet(*, small: bool) -> Real:
    """VNet."""
    from monai.networks.nets.vnet import VNet

    return Real(VNet(3, 1, 2), _images(1, 1, *(3 * [16 if small else 32])))


def _volume(small: bool) -> Tensor:
    return _images(2, 1, 16, 16, 16) if small else _images(1, 1, 64, 64, 64)


REAL_NETWORKS: dict[str, Callable[..., Real]] = {
    "ResNet": resnet,
    "MobileNetV2": mobilenet,
    "EfficientNet": efficientnet,
    "RegNet": regnet,
    "SegFormer": segformer,
    "ConvNeXt": convnext,
    "DETR": detr,
    "MONAI UNet": unet,
    "MONAI DynUNet": dynunet,
    "MONAI SegResNet": segresnet,
    "MONAI DenseNet121": densenet,
    "MONAI EfficientNet": monai_efficientnet,
    "MONAI HighResNet": highresnet,
    "MONAI VNet": vnet,
}


def draw_statistics(network: nn.Module) -> nn.Module:
    """Gives every normaliser weights, biases and statistics that differ from channel to channel, in place."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if not isinstance(getattr(module, "running_mean", None), Tensor):
                continue
            for name, centre in (("running_mean", 0.0), ("bias", 0.0), ("weight", 1.0), ("running_var", 1.0)):
                tensor = getattr(module, name, None)
                if isinstance(tensor, Tensor):
                    tensor.copy_(centre + 0.2 * torch.randn(tensor.shape, generator=draw).clamp(-3, 3))
    return network
