"""What a network computes with its normalisers in training and in inference mode, all else held."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normwright.doctor.subject import NoLossError, target_of
from normwright.network.calling import mapped, tensors_of
from normwright.statistics.guard import class_scores


@dataclass(frozen=True)
class ModeFacts:
    """The same batches in both modes, at the weights as they came; dropout stands still in both.

    NaN is what could not be known: the loss without a target, or of answers that take another form in
    inference than it takes; accuracy where the target is no class.

    Args:
        samples: how many were compared.
        batches: in how many batches.
        outputs: relative difference of the outputs, ‖training - inference‖/‖training - its mean‖, where the
            mean is over the samples of a batch.
        loss_training, loss_inference: means over the batches.
        loss_error: standard error of their difference, from how it varies between batches; NaN for one.
        accuracy_training, accuracy_inference: shares of right answers.
        first_loss: of the first batch in training mode; what a step's loss on it exceeds that by is dropout's
            share.
        loss_uninformed: mean over the batches of the loss where each sample is given the mean answer to the
            others of its batch: what can be said without a look at it. NaN where nobody knows: one sample, or
            a network that computes its own loss.
    """

    samples: int
    batches: int
    outputs: float
    loss_training: float
    loss_inference: float
    loss_error: float
    accuracy_training: float
    accuracy_inference: float
    first_loss: float
    loss_uninformed: float


class Comparison:
    """Adds up outputs of the two modes, batch by batch."""

    def __init__(self) -> None:
        self._samples = 0
        self._apart = self._whole = 0.0
        self._losses: list[tuple[float, float, float]] = []
        self._right: list[tuple[int, int, int]] = []

    @property
    def batches(self) -> int:
        """How many were added."""
        return len(self._losses)

    def add(self, batch: Any, training: Any, inference: Any, losses: tuple[float, float, float]) -> None:
        """Takes in what a batch gave.

        Args:
            batch: as the loader gave it.
            training, inference: the outputs.
            losses: in training and in inference mode, and of `uninformed` answers.
        """
        for one, other in zip(outputs_of(training), outputs_of(inference), strict=False):
            if one.shape == other.shape:
                one, other = one.double(), other.double()
                self._apart += float((one - other).square().sum())
                self._whole += float((one - one.mean(0)).square().sum())
        self._samples += next((len(output) for output in outputs_of(training)), 0)
        self._losses.append(losses)
        right = [_right(batch, outputs) for outputs in (training, inference)]
        if right[0] is not None and right[1] is not None:
            self._right.append((right[0][0], right[1][0], right[0][1]))

    def facts(self) -> ModeFacts:
        """All of it; at least one batch was added."""
        training, inference, uninformed = (
            sum(losses) / self.batches for losses in zip(*self._losses, strict=True)
        )
        answers = sum(count for *_, count in self._right)
        of_training, of_inference = (
            sum(right[mode] for right in self._right) / answers if answers else math.nan for mode in (0, 1)
        )
        return ModeFacts(
            self._samples,
            self.batches,
            math.sqrt(self._apart / self._whole) if self._whole > 0 else math.nan,
            training,
            inference,
            self._loss_error(),
            of_training,
            of_inference,
            self._losses[0][0],
            uninformed,
        )

    def _loss_error(self) -> float:
        gaps = torch.tensor(
            [inference - training for training, inference, _ in self._losses], dtype=torch.float64
        )
        return float(gaps.std()) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan


def outputs_of(outputs: Any) -> list[Tensor]:
    """What can be compared of outputs: class scores, or else every floating-point tensor that has samples."""
    scores = class_scores(outputs)
    found = tensors_of(outputs) if scores is None else [scores]
    return [tensor.detach() for tensor in found if tensor.is_floating_point() and tensor.dim()]


def uninformed(outputs: Any) -> Any:
    """Outputs in which each sample has the mean answer to the others; those that came where none has samples.

    Example:
        >>> uninformed(torch.tensor([1.0, 2.0, 6.0]))
        tensor([4.0000, 3.5000, 1.5000])
    """

    def of_others(output: Tensor) -> Tensor:
        if not output.is_floating_point() or output.dim() == 0 or len(output) < 2:
            return output
        return (output.sum(0, keepdim=True) - output) / (len(output) - 1)

    return mapped(outputs, of_others)


def _right(batch: Any, outputs: Any) -> tuple[int, int] | None:
    """How many answers are right, and of how many; None where the target is no class."""
    scores = class_scores(outputs)
    try:
        target = target_of(batch)
    except NoLossError:
        return None
    if scores is None or not isinstance(target, Tensor) or target.is_floating_point():
        return None
    answers = scores.argmax(1)
    if answers.shape != target.shape or target.dtype == torch.bool:
        return None
    return int((answers == target.to(answers.device)).sum()), target.numel()
