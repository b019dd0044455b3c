"""Faults of the optimiser and of the step: decay, accumulation, checkpointing, initial scales."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.faults.patients import BATCH, Patient, adam, loader_of, samples, sgd
from benchmarks.faults.seeded import Seeded

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def adamw_as_it_comes(patient: Patient) -> Patient:
    """AdamW over `network.parameters()`, with the decay of a recipe for transformers."""
    return patient.but(optimise=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05))


def adam_at_the_rate_of_sgd(patient: Patient) -> Patient:
    """The optimiser changed to Adam, the learning rate of SGD kept."""
    return patient.but(optimise=adam(lr=0.1))


def decay_on_everything(patient: Patient) -> Patient:
    """SGD with the usual decay on all parameters."""
    return patient.but(optimise=sgd(weight_decay=5e-4))


def decay_a_thousandfold(patient: Patient) -> Patient:
    """A decay of 1e-4 mistyped as 1e-1, on all parameters."""
    return patient.but(optimise=sgd(weight_decay=1e-1))


def every_scale_zero(patient: Patient) -> Patient:
    """The zero-initialisation meant for the last normaliser of a block, done to all of them."""
    for module in patient.network.modules():
        if isinstance(module, _BATCH_NORM):
            nn.init.zeros_(module.weight)
    return patient.but()


def small_batches_accumulated(patient: Patient) -> Patient:
    """Batches of 4, accumulated 16 times "to train with 64"."""
    return patient.but(loader=loader_of(*samples("digits"), batch=4), options={"accumulation": BATCH // 4})


class Checkpointed(nn.Module):
    """A stage that is computed again in the backward, to save memory."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        """As the stage's."""
        return cast(Tensor, checkpoint(self.stage, x, use_reentrant=False))


def stages_checkpointed(patient: Patient) -> Patient:
    """Every stage under activation checkpointing (normwright's own normalisers count once all the same)."""
    stages = cast(Any, patient.network).resnet.encoder.stages
    for place, stage in enumerate(stages):
        stages[place] = Checkpointed(stage)
    return patient.but()


def backbone_frozen(patient: Patient) -> Patient:
    """Fine-tuning of the classifier: the backbone takes no gradient, and `network.train()` is called."""
    network = cast(Any, patient.network)
    for parameter in network.resnet.parameters():
        parameter.requires_grad_(False)
    return patient.but(
        optimise=lambda _: torch.optim.SGD(network.classifier.parameters(), lr=0.01, momentum=0.9)
    )


def first_half_frozen(patient: Patient) -> Patient:
    """The first two stages of a trained network are kept from the optimiser and from gradients."""
    for name in ("stem", "stage1"):
        patient.network.get_submodule(name).requires_grad_(False)
    return patient.but(
        optimise=lambda parameters: torch.optim.Adam([p for p in parameters if p.requires_grad], lr=1e-3)
    )


FAULTS = (
    Seeded(
        "AdamW as it comes",
        "weight_decay_on_norm",
        "lenet",
        "AdamW over all parameters, decay 0.05",
        adamw_as_it_comes,
        where=("norm",),
    ),
    Seeded(
        "decay on everything",
        "weight_decay_on_norm",
        "Transformers ResNet",
        "SGD over all parameters, decay 5e-4",
        decay_on_everything,
        where=("normalization",),
    ),
    Seeded(
        "decay a thousandfold",
        "collapsed_scale",
        "resnet20",
        "a decay of 1e-4 mistyped as 1e-1, on normalisers too",
        decay_a_thousandfold,
        where=("norm",),
        states=("trained",),
        explains={
            "weight_decay_on_norm": "it is that, too",
            "vanishing_gradient": "a scale near 0 lets no gradient through",
            "gradient_imbalance": "the same, layer by layer",
            "dead_channels": "a scale of 0 leaves channels constant",
            "train_eval_gap": "the shrinking weights leave the running statistics behind",
            "stale_statistics": "the same",
            "eps_dominates": "activations shrink until eps exceeds their variance",
            "exploding_gradient": "where eps dominates, updates are large beside the shrunken weights",
        },
    ),
    Seeded(
        "Adam at SGD's rate",
        "diverging_loss",
        "resnet20",
        "a trained network goes on under Adam with the learning rate that SGD had, 0.1",
        adam_at_the_rate_of_sgd,
        states=("trained",),
        after_training=True,
    ),
    Seeded(
        "every scale zero",
        "collapsed_scale",
        "Transformers ResNet",
        "all normalisers' weights start at 0, not only the last of each block",
        every_scale_zero,
        where=("normalization",),
        states=("fresh",),
        explains={
            "vanishing_gradient": "a scale of 0 lets no gradient through",
            "gradient_imbalance": "the same",
            "dead_channels": "every channel is constant",
            "eps_dominates": "what follows is constant",
        },
    ),
    Seeded(
        "small batches, accumulated",
        "accumulation_mismatch",
        "resnet20",
        "batches of 4 accumulated 16 times",
        small_batches_accumulated,
        explains={"batch_too_small": "the moments are those of 4 samples, whatever is accumulated"},
    ),
    Seeded(
        "checkpointed stages",
        "double_update",
        "Transformers ResNet",
        "activation checkpointing around stages with batch norm",
        stages_checkpointed,
        where=("stages",),
    ),
    Seeded(
        "backbone frozen",
        "frozen_but_updating",
        "Transformers ResNet",
        "fine-tuning with the backbone's gradients off, but its batch norms in training mode",
        backbone_frozen,
        where=("resnet",),
        states=("trained",),
        after_training=True,
    ),
    Seeded(
        "first half frozen",
        "frozen_but_updating",
        "resnet20",
        "stem and first stage take no gradient, but their batch norms go on",
        first_half_frozen,
        where=("stem", "stage1"),
        states=("trained",),
        after_training=True,
    ),
)
