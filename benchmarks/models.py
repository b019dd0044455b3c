"""The networks that are measured, built from their libraries' own code, without any pretrained weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Model:
    """A network and a batch for it.

    Args:
        network: in training mode; its output is a tensor, or has one called logits.
        inputs: what it is called with; the first has the layout that is measured.
        note: what a reader of its figures should know.
    """

    network: nn.Module
    inputs: tuple[Tensor, ...]
    note: str


def resnet50(batch: int = 16, size: int = 224) -> Model:
    """ResNet-50 of the library transformers."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig()
    config.num_labels = 1000
    network = ResNetForImageClassification(config)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    note = (
        "ResNet-50 of transformers (depths 3, 4, 6, 3, bottleneck). Its ReLU is not in place as it comes; it "
        "is set to be, as torchvision's is, which is eager's faster form. Its addition is in place."
    )
    return Model(network, (torch.randn(batch, 3, size, size),), note)


def unet3d(batch: int = 2, size: int = 96) -> Model:
    """MONAI's U-Net in three dimensions, with nnU-Net's instance norm, leaky ReLU and widths."""
    from monai.networks.nets.unet import UNet

    network = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=2,
        channels=(32, 64, 128, 256, 320),
        strides=(2, 2, 2, 2),
        num_res_units=2,
        norm=("instance", {"affine": True}),
        act=("leakyrelu", {"negative_slope": 0.01, "inplace": True}),
    )
    note = "MONAI's UNet, 32 to 320 channels, residual units, affine instance norm, leaky ReLU in place."
    return Model(network, (torch.randn(batch, 1, size, size, size),), note)


def diffusion(batch: int = 4, size: int = 64) -> Model:
    """MONAI's diffusion U-Net in two dimensions, with group norm, SiLU and attention."""
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    network = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=3,
        channels=(128, 256, 256),
        attention_levels=(False, False, True),
        num_res_blocks=2,
        num_head_channels=64,
        norm_num_groups=32,
    )
    inputs = (torch.randn(batch, 3, size, size), torch.arange(batch))
    return Model(network, inputs, "MONAI's DiffusionModelUNet, 128 to 256 channels, group norm (32), SiLU.")


def transformer(batch: int = 8, size: int = 512) -> Model:
    """One pre-norm encoder layer of PyTorch, 768 wide, with layer norm; `size` is the sequence's length."""
    network = nn.TransformerEncoderLayer(
        768, 12, 3072, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    note = "torch.nn.TransformerEncoderLayer, pre-norm, 768 wide, 12 heads, no dropout, layer norm."
    return Model(network, (torch.randn(batch, size, 768),), note)


def transformer_rms(batch: int = 8, size: int = 512) -> Model:
    """The same layer with RMS norm in place of layer norm."""
    model = transformer(batch, size)
    for name in ("norm1", "norm2"):
        model.network.register_module(name, nn.RMSNorm(768, eps=1e-5))
    return Model(model.network, model.inputs, model.note.replace("layer norm", "RMS norm"))


MODELS: dict[str, Callable[..., Model]] = {
    "resnet50": resnet50,
    "unet3d": unet3d,
    "diffusion": diffusion,
    "transformer": transformer,
    "transformer_rms": transformer_rms,
}
