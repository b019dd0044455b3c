"""Watches a few steps of a training that goes on by itself."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normwright.doctor.diagnose import judged_by
from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import Missing
from normwright.doctor.monitor.window import Window
from normwright.doctor.rule import Rule
from normwright.doctor.structure.parameters import parameters_of
from normwright.doctor.training.activations import ActivationObserver
from normwright.doctor.training.gradients import GradientObserver, layers_in
from normwright.doctor.training.inputs import InputObserver
from normwright.doctor.training.trial import Observer
from normwright.network.spread import FSDP, spread_by

_COMPILED = Missing("the network is compiled: its layers are not called in Python")
_FLATTENED = Missing(
    "FullyShardedDataParallel flattens the parameters, and each process has a piece of all of them: "
    "fully_shard keeps them apart"
)


class Watch:
    """One window: the doctor's observers on the user's own network.

    Args:
        network: of the user.
        optimiser: that steps it.
        first: which step is the first.
        steps: how many there are to be.
        compiled: its layers cannot be heard; where they cannot, the watch finds it out.
    """

    def __init__(
        self, network: nn.Module, optimiser: Optimizer, first: int, steps: int, *, compiled: bool
    ) -> None:
        self._network, self._optimiser = network, optimiser
        self._first, self._steps, self.compiled = first, steps, compiled
        self._activations = ActivationObserver(self._counts)
        self._inputs = InputObserver(self._counts)
        self._gradients = GradientObserver(scale=self._scale)
        self._flattened = spread_by(network) == FSDP[1]
        self._observers: list[Observer] = [] if self._flattened else [self._gradients]
        self._listeners: list[Observer] = [self._activations, self._inputs]
        self._losses: list[float] = []
        self._done = 0
        self._hearing = contextlib.ExitStack()
        self._waits = True
        self._hear()

    @property
    def is_complete(self) -> bool:
        """Whether all steps were made."""
        return self._done == self._steps

    def gradients_ready(self, loss: float | None = None) -> None:
        """The gradients of a step have come; those of further calls of a closure do not count."""
        if not self._waits:
            return
        self._waits = False
        self._hearing.close()
        if loss is not None:
            self._losses.append(loss)
        for observer in self._present():
            observer.gradients_ready(self._network, self._done, float("nan") if loss is None else loss)

    def closure(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure of a step, after which the gradients have come."""

        def watched() -> Any:
            loss = closure()
            self.gradients_ready(float(loss.detach()) if isinstance(loss, Tensor) else loss)
            return loss

        return watched

    def stepped(self) -> None:
        """The optimiser has made its step."""
        if self._waits:  # its closure was not called
            return
        for observer in self._present():
            observer.stepped(self._network, self._done)
        self._done += 1
        if not self.is_complete:
            self._waits = True
            self._hear()

    def close(self) -> None:
        """Hears no more."""
        self._waits = False
        self._hearing.close()

    def window(self, rules: Collection[Rule]) -> Window:
        """What was read, and what the rules find in it."""
        evidence = self._evidence()
        return Window(self._first, self._first + self._done - 1, evidence, judged_by(rules, evidence)[1])

    def _hear(self) -> None:
        for observer in self._present():
            self._hearing.enter_context(observer.watching(self._network, self._done))

    def _present(self) -> list[Observer]:
        return self._observers + ([] if self.compiled else self._listeners)

    def _counts(self) -> bool:
        """A validation may come between two steps.

        Where torch.compile has the network, those that listen would be compiled with it, for minutes, and
        anew in every step, until it compiles no more: they are taken off once it does so.
        """
        if torch.compiler.is_compiling():
            self.compiled = True
            return False
        return self._network.training and torch.is_grad_enabled()

    def _scale(self) -> float:
        """What a scaler leaves in the gradients, for a fused optimiser to take out."""
        scale = getattr(self._optimiser, "grad_scale", None)
        return 1.0 if scale is None else float(scale)

    def _evidence(self) -> Evidence:
        missing: Any = Missing("it is not read while a network trains")
        parts = {part.name: missing for part in dataclasses.fields(Evidence)}
        gradients: Any = self._gradients.facts(self._network)
        layer_gradients: Any = layers_in(gradients, self._activations.order())
        if self._flattened:
            gradients = layer_gradients = _FLATTENED
        return Evidence(
            **{
                **parts,
                "network": type(self._network).__name__,
                "optimiser": type(self._optimiser).__name__,
                "parameters": parameters_of(self._network, self._optimiser),
                "activations": _COMPILED if self.compiled else self._activations.facts(),
                "inputs": _COMPILED if self.compiled else self._inputs.facts(),
                "losses": tuple(self._losses) or Missing("the loss is seen only where a step has a closure"),
                "gradients": gradients,
                "layer_gradients": layer_gradients,
            }
        )
