"""Faults that show in what layers give: saturated, dead, not finite."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.faults.feeding import pixels
from benchmarks.faults.patients import Patient, adam, lenet, loader_of, resnet20, sgd
from benchmarks.faults.seeded import Seeded


class LeNetByHand(nn.Module):
    """LeNet without normalisers as a beginner writes it: functional calls in one forward.

    Args:
        bias: what every hidden bias starts from.
    """

    def __init__(self, *, bias: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.output = nn.Linear(84, 10)
        for layer in (self.conv1, self.conv2, self.fc1, self.fc2):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 1, 28, 28) -> (N, 10)."""
        x = F.avg_pool2d(self.activation(self.conv1(x)), 2)
        x = F.avg_pool2d(self.activation(self.conv2(x)), 2).flatten(1)
        x = self.activation(self.fc1(x))
        x = self.activation(self.fc2(x))
        return cast(Tensor, self.output(x))

    def activation(self, x: Tensor) -> Tensor:
        """After each hidden layer."""
        return torch.sigmoid(x)


class LeNetWithRelu(LeNetByHand):
    """The same with `F.relu`."""

    def activation(self, x: Tensor) -> Tensor:
        """After each hidden layer."""
        return F.relu(x)


def large_weights(patient: Patient) -> Patient:
    """Weights drawn by `torch.randn`, of deviation 1, before sigmoids, and no normaliser."""
    return patient.but(network=lenet(norm="none", initialisation="normal", init_std=1.0).network)


def raw_pixels_by_hand(patient: Patient) -> Patient:
    """A network by hand, with functional sigmoids, on raw pixels."""
    return patient.but(network=LeNetByHand(), loader=loader_of(*pixels("fashion-mnist")))


def large_weights_by_hand(patient: Patient) -> Patient:
    """The same by hand: `torch.nn.init.normal_` with its default deviation of 1."""
    network = LeNetByHand()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight)
    return patient.but(network=network)


def tanh_of_large_state(patient: Patient) -> Patient:
    """The LSTM's weights drawn by `torch.randn`, and a tanh over what it gives."""
    for name in ("layer1", "layer2"):
        layer = patient.network.get_submodule(name)
        linear = nn.Linear(32, 32)
        nn.init.normal_(linear.weight, std=10.0)
        layer.norm = nn.Sequential(linear, nn.Tanh())
    return patient.but()


def learning_rate_too_high(patient: Patient) -> Patient:
    """ReLU without normalisers, and Adam at 100 times its usual rate: units die in the first steps."""
    network = lenet(norm="none", activation="relu", initialisation="kaiming").network
    return patient.but(network=network, optimise=adam(0.1))


def biases_far_below_zero(patient: Patient) -> Patient:
    """Biases that start at −3, from a table where they were meant for the output alone."""
    return patient.but(network=LeNetWithRelu(bias=-3.0))


def pruned_by_zeroing(patient: Patient) -> Patient:
    """Half of the filters of the last stage were pruned: they, and their normalisers' entries, are 0."""
    for name, module in patient.network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name.startswith("stage3") and name.endswith("norm1"):
            with torch.no_grad():
                module.weight[::2] = 0.0
                module.bias[::2] = 0.0
    return patient.but()


def each_row_standardised(patient: Patient) -> Patient:
    """Every row of an image less its mean and over its deviation, which is 0 where the row is blank."""
    x, y = pixels("fashion-mnist")
    return patient.but(loader=loader_of((x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True), y))


def logarithm_of_zero(patient: Patient) -> Patient:
    """Pixels on a logarithmic scale: log(0) is −∞."""
    x, y = pixels("fashion-mnist")
    return patient.but(loader=loader_of(x.log(), y))


def diverged(patient: Patient) -> Patient:
    """No normalisers, and a learning rate of 10: the weights overflow."""
    network = resnet20(norm="none").network
    return patient.but(network=network, optimise=sgd(10.0))


_NO_GRADIENT = {
    "vanishing_gradient": "no gradient passes such a layer",
    "gradient_imbalance": "the same, layer by layer",
}

FAULTS = (
    Seeded(
        "large weights",
        "saturated_activation",
        "lenet",
        "no normaliser, weights of deviation 1 before sigmoids",
        large_weights,
        where=("activation",),
        explains={
            **_NO_GRADIENT,
            "exploding_gradient": "where sigmoids are not flat, weights of 1 multiply what comes back",
            "dead_units": "a unit that is always saturated",
            "dead_channels": "the same",
            "internal_covariate_shift": "one update moves a sigmoid from one flat end to the other",
        },
    ),
    Seeded(
        "large weights by hand",
        "saturated_activation",
        "lenet",
        "a LeNet by hand with functional sigmoids, weights of deviation 1",
        large_weights_by_hand,
        where=("sigmoid",),
        explains={
            **_NO_GRADIENT,
            "exploding_gradient": "where sigmoids are not flat, weights of 1 multiply what comes back",
            "dead_units": "a unit that is always saturated",
            "dead_channels": "the same",
            "internal_covariate_shift": "one update moves a sigmoid from one flat end to the other",
        },
    ),
    Seeded(
        "raw pixels by hand",
        "unnormalised_input",
        "lenet",
        "a LeNet by hand with functional sigmoids, fed pixels from 0 to 255",
        raw_pixels_by_hand,
        explains={
            **_NO_GRADIENT,
            "saturated_activation": "most sigmoids over an object's pixels are flat",
            "exploding_gradient": "a gradient by a weight is as large as the weight's input",
            "dead_units": "a unit that is always saturated",
            "dead_channels": "the same",
            "internal_covariate_shift": "one update moves a sigmoid from one flat end to the other",
        },
    ),
    Seeded(
        "tanh of large sums",
        "saturated_activation",
        "LSTM",
        "a linear layer of deviation 10 and a tanh in the normalisers' place",
        tanh_of_large_state,
        where=("norm.1",),
        explains={
            **_NO_GRADIENT,
            "exploding_gradient": "the weights of 10 multiply what comes back",
            "dead_units": "a unit that is always saturated",
            "internal_covariate_shift": "one update moves a sigmoid from one flat end to the other",
        },
    ),
    Seeded(
        "learning rate too high",
        "dead_units",
        "lenet",
        "ReLU without normalisers, Adam at 0.1",
        learning_rate_too_high,
        where=("activation",),
        states=("trained",),
        explains={
            **_NO_GRADIENT,
            "dead_channels": "the same in convolutions",
            "exploding_gradient": "what the first steps do",
            "internal_covariate_shift": "what steps of such a size do",
            "diverging_loss": "it is that, too",
        },
    ),
    Seeded(
        "biases far below zero",
        "dead_units",
        "lenet",
        "a LeNet by hand with functional ReLUs, whose biases start at −3",
        biases_far_below_zero,
        where=("relu",),
        explains={
            **_NO_GRADIENT,
            "dead_channels": "the same in convolutions",
        },
    ),
    Seeded(
        "pruned by zeroing",
        "dead_channels",
        "resnet20",
        "half of the last stage's channels pruned by zeroing weight and bias of their normaliser",
        pruned_by_zeroing,
        where=("stage3",),
        states=("trained",),
        after_training=True,
        explains={
            "collapsed_scale": "their scale is 0",
            "dead_units": "the same",
            "stale_statistics": "what follows has running statistics of the whole network",
            "train_eval_gap": "and inference normalises by them",
        },
    ),
    Seeded(
        "each row standardised",
        "nonfinite_values",
        "lenet",
        "every row of an image over its deviation, 0/0 where it is blank",
        each_row_standardised,
        explains={"unnormalised_input": "they are NaN"},
    ),
    Seeded(
        "logarithm of zero",
        "nonfinite_values",
        "LSTM",
        "pixels on a logarithmic scale, log(0) = −∞",
        logarithm_of_zero,
        explains={"unnormalised_input": "they are infinite"},
    ),
    Seeded(
        "diverged",
        "nonfinite_values",
        "resnet20",
        "no normalisers, learning rate 10, and the weights overflowed",
        diverged,
        states=("trained",),
        explains={
            **_NO_GRADIENT,
            "exploding_gradient": "they did",
            "dead_units": "NaN is never above 0",
            "dead_channels": "the same",
        },
    ),
)
