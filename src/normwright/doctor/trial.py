"""A few steps of training on a copy, while observers look on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from normwright.doctor.subject import NoLossError, Subject


class Observer(Protocol):
    """Looks on while a network trains; it changes nothing.

    For each mini-batch: `watching` around the forward (and the backward, where there is a loss), then
    `gradients_ready` where there is a loss, then `stepped` where the optimiser made a step.
    """

    def watching(self, network: nn.Module, step: int) -> contextlib.AbstractContextManager[object]:
        """Around the forward and backward of mini-batch `step`, counted from 0."""

    def gradients_ready(self, network: nn.Module, step: int, loss: float) -> None:
        """Gradients of the mini-batches since the last step of the optimiser are summed in `.grad`."""

    def stepped(self, network: nn.Module, step: int) -> None:
        """The optimiser has changed the parameters, and the gradients still stand."""


def train(twin: Subject, observers: Sequence[Observer]) -> str:
    """Trains a twin for one epoch of its batches.

    Args:
        twin: a copy (`Subject.twin`), which is trained in training mode, as its modules came but for that:
            what was held in inference mode inside a network that trains stays so.
        observers: in the order in which they are told.
    Returns:
        Why there were no gradients, or "".
    Raises:
        Whatever the network or the loss raises.
    """
    network, optimiser = twin.network, twin.optimiser
    if not network.training:
        network.train()
    without = ""
    waiting = 0
    for step, batch in enumerate(twin.batches):
        with contextlib.ExitStack() as stack:
            for observer in observers:
                stack.enter_context(observer.watching(network, step))
            try:
                loss = _backward(twin, batch)
            except NoLossError as none:
                without, loss = str(none), None
        if loss is None:
            continue
        waiting += 1
        for observer in observers:
            observer.gradients_ready(network, step, loss)
        if waiting == twin.accumulation:
            waiting = 0
            if optimiser is not None:
                optimiser.step()
                for observer in observers:
                    observer.stepped(network, step)
            network.zero_grad(set_to_none=True)
    return without


def _backward(twin: Subject, batch: object) -> float:
    """The loss of a batch, whose gradients are added to the parameters'."""
    with torch.enable_grad():
        loss = twin.loss_of(batch, twin.outputs(batch))
        if loss.requires_grad:
            # as gradient accumulation does: the mean over the mini-batches of a step
            (loss / twin.accumulation).backward()
    return float(loss.detach())
