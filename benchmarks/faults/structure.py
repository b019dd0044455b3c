"""Faults of how layers stand to one another."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.faults.patients import Patient, lenet, lstm
from benchmarks.faults.seeded import Seeded, replaced, rewritten
from normwright.lab.networks.lstm import NormalisedLSTM
from normwright.lab.networks.resnet20 import ResidualBlock


def convolutions_with_bias(patient: Patient) -> Patient:
    """Somebody wrote `nn.Conv2d(…)` and left `bias` at its default."""

    def as_by_default(module: nn.Module) -> nn.Module:
        conv = cast(nn.Conv2d, module)
        sizes = (conv.in_channels, conv.out_channels, 3)
        return nn.Conv2d(*sizes, stride=conv.stride[0], padding=1)

    return patient.but(network=replaced(patient.network, nn.Conv2d, as_by_default))


def head_with_bias(patient: Patient) -> Patient:
    """A projection head, as contrastive learning has it, put in the classifier's place."""
    head = nn.Sequential(nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    patient.network.classifier = nn.Sequential(nn.Flatten(), *head)
    return patient.but()


def sigmoid_before_norm(patient: Patient) -> Patient:
    """The normaliser put last in every block, "so that each layer's input is normalised"."""
    return patient.but(network=lenet(place="after").network)


class ReluFirst(ResidualBlock):
    """The block with its first normaliser and a functional ReLU the wrong way round."""

    def forward(self, x: Tensor) -> Tensor:
        """As the block's."""
        y = self.norm1(F.relu(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self._shortcut(x))


def relu_before_norm(patient: Patient) -> Patient:
    """The block's forward with two calls swapped."""
    return patient.but(network=rewritten(patient.network, ResidualBlock, ReluFirst))


def dropout_in_the_middle(patient: Patient) -> Patient:
    """Dropout of a half after each linear layer, where an old network had it, and the norm after it."""
    for name in ("fc1", "fc2"):
        parts = OrderedDict(patient.network.get_submodule(name).named_children())
        linear, norm, activation = parts["linear"], parts["norm"], parts["activation"]
        block = OrderedDict(linear=linear, dropout=nn.Dropout(0.5), norm=norm, activation=activation)
        patient.network.set_submodule(name, nn.Sequential(block))
    return patient.but()


def dropout_in_a_forward(patient: Patient) -> Patient:
    """A functional dropout of a fifth between convolution and norm, in the library's own layer."""
    from transformers.models.resnet.modeling_resnet import ResNetConvLayer

    class Dropping(ResNetConvLayer):
        def forward(self, hidden_states: Tensor) -> Tensor:
            y = F.dropout(self.convolution(hidden_states), 0.2, self.training)
            return cast(Tensor, self.activation(self.normalization(y)))

    return patient.but(network=rewritten(patient.network, ResNetConvLayer, Dropping))


class SameNormTwice(ResidualBlock):
    """The block after a copy and paste: its second convolution is normalised by `norm1`."""

    def forward(self, x: Tensor) -> Tensor:
        """As the block's."""
        y = self.activation1(self.norm1(self.conv1(x)))
        y = self.norm1(self.conv2(y))
        return cast(Tensor, self.activation2(y + self._shortcut(x)))


def same_norm_twice(patient: Patient) -> Patient:
    """`norm1` where `norm2` was meant."""
    return patient.but(network=rewritten(patient.network, ResidualBlock, SameNormTwice))


def norm_shared_with_the_shortcut(patient: Patient) -> Patient:
    """One normaliser for a bottleneck's last convolution and its shortcut: "they are added anyway"."""
    for module in patient.network.modules():
        shortcut = getattr(module, "shortcut", None)
        if shortcut is not None and not isinstance(shortcut, nn.Identity):
            cast(nn.Sequential, module.layer)[-1].normalization = shortcut.normalization
    return patient.but()


def group_for_each_unit(patient: Patient) -> Patient:
    """Batch norm replaced by `GroupNorm(C, C)` everywhere, also after linear layers."""

    def grouped(module: nn.Module) -> nn.Module:
        width = cast(int, module.num_features)
        return nn.GroupNorm(width, width)

    return patient.but(network=replaced(patient.network, nn.modules.batchnorm._BatchNorm, grouped))


class NormInTheLoop(nn.Module):
    """A loop over an LSTM cell, with one batch norm for the hidden state of all steps."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(features, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, features) -> (N, T, width)."""
        hidden = torch.zeros(len(x), self.cell.hidden_size)
        cell = torch.zeros_like(hidden)
        steps = []
        for step in x.unbind(1):
            hidden, cell = self.cell(step, (hidden, cell))
            hidden = self.norm(hidden)
            steps.append(hidden)
        return torch.stack(steps, 1)


def norm_in_the_loop(patient: Patient) -> Patient:
    """The second layer's loop normalises its hidden state at every step, by the same statistics."""
    patient.network.layer2 = NormInTheLoop(32, 32)
    return patient.but()


def norm_over_steps(patient: Patient) -> Patient:
    """Batch norm after each LSTM layer, over samples and steps alike."""
    assert any(isinstance(module, NormalisedLSTM) for module in patient.network.modules())
    return patient.but(network=lstm(norm="batch").network)


FAULTS = (
    Seeded(
        "biases forgotten",
        "bias_before_norm",
        "resnet20",
        "convolutions before batch norm keep their default bias",
        convolutions_with_bias,
        where=("conv",),
    ),
    Seeded(
        "biased head",
        "bias_before_norm",
        "Transformers ResNet",
        "a projection head of linear layer, batch norm and ReLU keeps the default bias",
        head_with_bias,
        where=("classifier.1",),
    ),
    Seeded(
        "norm last in the block",
        "norm_after_activation",
        "lenet",
        "sigmoid before the normaliser in every block",
        sigmoid_before_norm,
        where=("norm", "activation"),
    ),
    Seeded(
        "two calls swapped",
        "norm_after_activation",
        "resnet20",
        "the block's forward applies a functional ReLU before its first norm",
        relu_before_norm,
        where=("norm1", "relu"),
    ),
    Seeded(
        "dropout from an old network",
        "dropout_before_norm",
        "lenet",
        "dropout of 0.5 between linear layer and batch norm",
        dropout_in_the_middle,
        where=("fc1", "fc2"),
        explains={
            "train_eval_gap": "the variance that the normaliser keeps is that of dropped-out inputs",
            "stale_statistics": "the same: they do not fit inference, where nothing is dropped",
        },
    ),
    Seeded(
        "dropout in a forward",
        "dropout_before_norm",
        "Transformers ResNet",
        "a functional dropout of 0.2 between convolution and batch norm",
        dropout_in_a_forward,
        where=("normalization", "dropout"),
        explains={
            "train_eval_gap": "the variance that the normaliser keeps is that of dropped-out inputs",
            "stale_statistics": "the same: they do not fit inference, where nothing is dropped",
        },
    ),
    Seeded(
        "copy and paste",
        "norm_used_twice",
        "resnet20",
        "the block's forward calls norm1 for both convolutions",
        same_norm_twice,
        where=("norm1",),
        explains={
            "train_eval_gap": "one pair of running statistics serves two distributions",
            "stale_statistics": "the same: they fit neither",
        },
    ),
    Seeded(
        "one norm for two branches",
        "norm_used_twice",
        "Transformers ResNet",
        "a bottleneck's shortcut and last convolution share one batch norm",
        norm_shared_with_the_shortcut,
        where=("normalization",),
        explains={
            "train_eval_gap": "one pair of running statistics serves two distributions",
            "stale_statistics": "the same: they fit neither",
        },
    ),
    Seeded(
        "a group for each unit",
        "group_of_one",
        "lenet",
        "batch norm became GroupNorm(C, C), after linear layers too",
        group_for_each_unit,
        where=("fc1.norm", "fc2.norm"),
        explains={
            "vanishing_gradient": "what a group of one element gives does not depend on its input",
            "gradient_imbalance": "so no gradient passes it",
            "dead_units": "and every unit is constant",
            "dead_channels": "the same",
            "internal_covariate_shift": "what is all but constant moves by any number of its deviations",
        },
    ),
    Seeded(
        "norm in the loop",
        "recurrent_shared_statistics",
        "LSTM",
        "a loop over an LSTM cell normalises its hidden state by one batch norm at every step",
        norm_in_the_loop,
        where=("layer2.norm",),
        explains={
            "norm_used_twice": "it is used once for each of 28 steps",
            "train_eval_gap": "the statistics of 28 steps are one average",
            "stale_statistics": "which fits no step",
        },
    ),
    Seeded(
        "batch norm over steps",
        "recurrent_shared_statistics",
        "LSTM",
        "batch norm after each LSTM layer, over samples and steps alike",
        norm_over_steps,
        where=("layer1.norm", "layer2.norm"),
    ),
)
