"""What a network computes with its normalisers in training and in inference mode, all else held."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModeFacts:
    """The same batches in both modes, at the weights as they came; dropout stands still in both.

    NaN is what could not be known: the loss without a target, accuracy where the target is no class.

    Args:
        samples: how many were compared.
        outputs: relative difference of the outputs, ‖training - inference‖/‖training - its mean‖.
        loss_training, loss_inference: means over the batches.
        loss_error: standard error of their difference, from how it varies between batches.
        accuracy_training, accuracy_inference: shares of right answers.
        loss_with_dropout: of the first batch with all in training mode, so dropout's share is this less
            `loss_without_dropout`.
        loss_without_dropout: of the first batch with the normalisers alone in training mode.
        fresh: no normaliser has ever moved its running statistics, and all are as built.
    """

    samples: int
    outputs: float
    loss_training: float
    loss_inference: float
    loss_error: float
    accuracy_training: float
    accuracy_inference: float
    loss_with_dropout: float
    loss_without_dropout: float
    fresh: bool
