"""Faults that cost time alone."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.faults.patients import Patient
from benchmarks.faults.seeded import Seeded, replaced, rewritten
from normwright.lab.networks.resnet20 import ResidualBlock


class LayerNormOfChannels(nn.Module):
    """Layer norm over channels, by two permutations and a copy, as ConvNeXt's first code had it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W)."""
        return cast(Tensor, self.norm(x.permute(0, 2, 3, 1).contiguous())).permute(0, 3, 1, 2).contiguous()


def layer_norm_by_permuting(patient: Patient) -> Patient:
    """Batch norm replaced by layer norm over channels."""
    network = replaced(
        patient.network, nn.BatchNorm2d, lambda module: LayerNormOfChannels(cast(int, module.num_features))
    )
    return patient.but(network=network)


class Contiguous(ResidualBlock):
    """The block that makes its convolutions' outputs contiguous, "to be safe"."""

    def forward(self, x: Tensor) -> Tensor:
        """As the block's."""
        y = self.activation1(self.norm1(self.conv1(x).contiguous()))
        y = self.norm2(self.conv2(y.contiguous(memory_format=torch.channels_last)).contiguous())
        return cast(Tensor, self.activation2(y + self._shortcut(x)))


def contiguous_in_channels_last(patient: Patient) -> Patient:
    """A network in channels-last whose blocks call `.contiguous()` before every normaliser."""
    network = rewritten(patient.network, ResidualBlock, Contiguous)
    return patient.but(network=network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


class BatchNormByHand(nn.BatchNorm2d):
    """Batch norm written out, as a lesson leaves it."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name for it
        """input: (N, C, H, W)."""
        assert self.running_mean is not None
        assert self.running_var is not None
        if self.training:
            mean, variance = input.mean((0, 2, 3)), input.var((0, 2, 3), correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(input.var((0, 2, 3)), 0.1)
        else:
            mean, variance = self.running_mean, self.running_var
        mean, variance = mean.view(1, -1, 1, 1), variance.view(1, -1, 1, 1)
        x = (input - mean) / (variance + self.eps).sqrt()
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def batch_norm_by_hand(patient: Patient) -> Patient:
    """The network built with a batch norm of one's own."""

    def by_hand(module: nn.Module) -> nn.Module:
        return BatchNormByHand(cast(int, module.num_features))

    return patient.but(network=replaced(patient.network, nn.BatchNorm2d, by_hand))


FAULTS = (
    Seeded(
        "permuted and copied",
        "slow_layout",
        "Transformers ResNet",
        "layer norm over channels by permuting, with copies on both sides",
        layer_norm_by_permuting,
        where=("norm",),
        explains={
            "internal_covariate_shift": "at this learning rate layer norm holds the classifier's input less "
            "steady than batch norm did"
        },
    ),
    Seeded(
        "contiguous, to be safe",
        "slow_layout",
        "resnet20",
        "a channels-last network whose blocks call contiguous() before each norm",
        contiguous_in_channels_last,
        where=("norm",),
    ),
    Seeded(
        "batch norm by hand",
        "slow_kernel",
        "Transformers ResNet",
        "a batch norm of one's own, in plain arithmetic",
        batch_norm_by_hand,
        where=("normalization",),
    ),
)
