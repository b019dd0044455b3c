"""A few steps of training on a copy, while observers look on."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normwright.doctor.statistics.ranks import all_finite
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


@dataclass(frozen=True)
class Course:
    """How a trial went.

    Args:
        losses: of the mini-batches that were trained on, in order; the last is not finite where that ended
            the trial, of this rank's or another's.
        no_gradients: why there were none, or "".
        no_updates: why the optimiser made no step, or "".
    """

    losses: tuple[float, ...]
    no_gradients: str
    no_updates: str


def train(twin: Subject, observers: Sequence[Observer]) -> Course:
    """Trains a twin for one epoch of its batches, or until a loss is not finite.

    Args:
        twin: a copy (`Subject.twin`), which is trained in training mode, as its modules came but for that:
            what was held in inference mode inside a network that trains stays so.
        observers: in the order in which they are told.
    Raises:
        Whatever the network or the loss raises.
    """
    network, optimiser = twin.network, twin.optimiser
    if not network.training:
        network.train()
    network.zero_grad(set_to_none=True)  # the copy has the gradients that its user's last step left
    no_gradients, no_updates = "", why_it_cannot_step(optimiser)
    losses: list[float] = []
    waiting = 0
    with forced_eager():
        for step, batch in enumerate(twin.batches):
            with contextlib.ExitStack() as stack:
                for observer in observers:
                    stack.enter_context(observer.watching(network, step))
                try:
                    loss = _loss(twin, batch)
                except NoLossError as none:
                    no_gradients = str(none)
                    continue
                if not loss.requires_grad:
                    no_gradients = "the loss depends on no parameter that takes a gradient"
                    losses.append(float(loss))
                    continue
                with torch.enable_grad():
                    # as gradient accumulation does: the mean over the mini-batches of a step
                    (loss / twin.accumulation).backward()
            losses.append(float(loss.detach()))
            waiting += 1
            for observer in observers:
                observer.gradients_ready(network, step, losses[-1])
            if not all_finite(losses[-1], twin):
                break
            if waiting < twin.accumulation:
                continue
            waiting = 0
            if optimiser is not None and not no_updates:
                no_updates = try_step(optimiser)
            if optimiser is not None and not no_updates:
                for observer in observers:
                    observer.stepped(network, step)
            network.zero_grad(set_to_none=True)
    return Course(tuple(losses), no_gradients, no_updates)


def _loss(twin: Subject, batch: object) -> Tensor:
    with torch.enable_grad():
        return twin.loss_of(batch, twin.outputs(batch))


def why_it_cannot_step(optimiser: Optimizer | None) -> str:
    """Why there is no calling step() of an optimiser without arguments, or ""."""
    if optimiser is None:
        return "no optimiser came"
    if any(kind.__name__ == "Joinable" for kind in type(optimiser).__mro__):  # ZeroRedundancyOptimizer
        return f"{type(optimiser).__name__} is spread over processes, and no copy of it steps"
    closure = inspect.signature(optimiser.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return f"{type(optimiser).__name__} steps only with a closure"
    return ""


def try_step(optimiser: Optimizer) -> str:
    """Makes a step; why there was none, or "", as where a step takes what only the user's loop gives it."""
    try:
        optimiser.step()
    except Exception as error:
        return f"{type(optimiser).__name__} made no step of a copy: {type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def forced_eager() -> Iterator[None]:
    """Inside, what torch.compile compiled runs in Python, where hooks are called."""
    if "torch._dynamo" not in sys.modules:  # then nothing was compiled, and loading it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
