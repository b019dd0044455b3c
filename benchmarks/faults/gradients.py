"""Faults that show in gradients."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.faults.patients import Patient, lenet, resnet20, sgd
from benchmarks.faults.seeded import Seeded, rewritten
from normwright.lab.networks.lstm import LastStep
from normwright.lab.networks.resnet20 import ResidualBlock


def small_weights_and_sigmoids(patient: Patient) -> Patient:
    """No normaliser, sigmoids, and initial weights of deviation 0.01."""
    return patient.but(network=lenet(norm="none", initialisation="normal", init_std=0.01).network)


class Detached(ResidualBlock):
    """The block with a `detach()` that was left from debugging."""

    def forward(self, x: Tensor) -> Tensor:
        """As the block's; nothing below it learns."""
        return super().forward(x.detach())


def detached(patient: Patient) -> Patient:
    """The first block of the last stage detaches its input."""
    patient.network.get_submodule("stage3.block1").__class__ = Detached
    return patient.but()


def large_weights_without_norm(patient: Patient) -> Patient:
    """The normalisers taken out and the weights drawn with deviation 0.3, several times Kaiming's."""
    return patient.but(network=resnet20(norm="none", initialisation="normal", init_std=0.3).network)


def residual_scale_upside_down(patient: Patient) -> Patient:
    """Normalisers left out, and every residual branch times 8 where it was to be an eighth."""
    from transformers.models.resnet.modeling_resnet import ResNetBottleNeckLayer

    class Scaled(ResNetBottleNeckLayer):
        def forward(self, hidden_state: Tensor) -> Tensor:
            branch = 8 * self.layer(hidden_state)
            return cast(Tensor, self.activation(branch + self.shortcut(hidden_state)))

    network = rewritten(patient.network, ResNetBottleNeckLayer, Scaled)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
    return patient.but(network=network)


class FromFirstRows(LastStep):
    """Reads the sum over all steps, through a sigmoid that hardly leaves its middle."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, width) -> (N, width)."""
        return torch.sigmoid(1e-3 * x.sum(1))


def squashed_before_the_output(patient: Patient) -> Patient:
    """A temperature meant for the logits, 1000, applied below the output layer."""
    return patient.but(network=rewritten(patient.network, LastStep, FromFirstRows))


def no_norm_and_large_steps(patient: Patient) -> Patient:
    """The normalisers taken out of a ReLU LeNet, the learning rate kept at what they allowed."""
    network = lenet(norm="none", activation="relu", initialisation="kaiming").network
    return patient.but(network=network, optimise=sgd(0.2))


_ALIKE: dict[str, Any] = {
    "vanishing_gradient": "it is that, too",
    "gradient_imbalance": "it is that, too",
}

FAULTS = (
    Seeded(
        "small weights and sigmoids",
        "vanishing_gradient",
        "lenet",
        "no normaliser, weights of deviation 0.01 before sigmoids",
        small_weights_and_sigmoids,
        where=("conv", "fc"),
        states=("fresh",),
        explains={
            **_ALIKE,
            "internal_covariate_shift": "what is all but constant moves by any number of its deviations",
        },
    ),
    Seeded(
        "detached",
        "vanishing_gradient",
        "resnet20",
        "a detach() left in the forward of the last stage's first block",
        detached,
        where=("stem", "stage1", "stage2"),
        explains=_ALIKE,
    ),
    Seeded(
        "no norm, large weights",
        "exploding_gradient",
        "resnet20",
        "no normaliser, weights of deviation 0.3",
        large_weights_without_norm,
        states=("fresh",),
        explains={
            **_ALIKE,
            "nonfinite_values": "the first update overflows",
            "internal_covariate_shift": "every step is too large",
            "dead_units": "after the first update",
            "dead_channels": "the same",
            "diverging_loss": "every step is too large",
        },
    ),
    Seeded(
        "residual scale upside down",
        "exploding_gradient",
        "Transformers ResNet",
        "no normaliser, residual branches times 8",
        residual_scale_upside_down,
        states=("fresh",),
        explains={
            **_ALIKE,
            "nonfinite_values": "the first update overflows",
            "internal_covariate_shift": "every step is too large",
            "dead_units": "after the first update",
            "dead_channels": "the same",
            "diverging_loss": "every step is too large",
        },
    ),
    Seeded(
        "squashed below the output",
        "gradient_imbalance",
        "LSTM",
        "a temperature of 1,000 and a sigmoid below the output layer",
        squashed_before_the_output,
        explains={"vanishing_gradient": "it is that, too"},
    ),
    Seeded(
        "no norm, large steps",
        "internal_covariate_shift",
        "lenet",
        "no normaliser, SGD at 0.2 with momentum",
        no_norm_and_large_steps,
        states=("fresh",),
        explains={
            **_ALIKE,
            "exploding_gradient": "every step is too large",
            "dead_units": "after the first updates",
            "dead_channels": "the same",
            "nonfinite_values": "after some steps",
            "diverging_loss": "every step is too large",
        },
    ),
)
