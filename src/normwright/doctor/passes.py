"""Runs a copy of a network, its weights as they came, with its normalisers in either mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from normwright.doctor.missing import SkipError
from normwright.doctor.modes import Comparison, ModeFacts
from normwright.doctor.moments import MomentFacts
from normwright.doctor.running import RunningFacts, running_facts
from normwright.doctor.sight import Sight
from normwright.doctor.sights import sighted
from normwright.doctor.subject import NoLossError, Subject
from normwright.doctor.tally import Tally
from normwright.network.frozen_class import is_frozen
from normwright.network.walk import find_normalisers, is_normaliser
from normwright.statistics.batches import samples_in
from normwright.statistics.untouched import untouched

# Both modes are compared on this many batches: a forward costs a third of a step. Moments are read on all.
_COMPARED = 4


@dataclass(frozen=True, eq=False)
class Passes:
    """What the passes showed.

    Args:
        refused: by place, the batches that the network cannot be trained on, and why.
        moments: of each normaliser, in the order of the forward pass.
        running: of each that keeps running statistics.
        modes: the outputs compared; None where every batch is refused.
    """

    refused: dict[int, str]
    moments: tuple[MomentFacts, ...]
    running: tuple[RunningFacts, ...]
    modes: ModeFacts | None

    def need_running(self) -> tuple[RunningFacts, ...]:
        """Raises SkipError where no batch could be run in training mode."""
        self.need_modes()
        return self.running

    def need_modes(self) -> ModeFacts:
        """Raises SkipError where no batch could be run in training mode."""
        if self.modes is None:
            raise SkipError(next(iter(self.refused.values())))
        return self.modes


def run_passes(subject: Subject) -> Passes:
    """Runs the passes on a twin of the subject.

    Raises:
        Whatever the network or the loss raises.
    """
    return _Runner(subject.twin()).run()


class _Runner:
    """A twin whose modules are held in inference mode, but for its normalisers where they train."""

    def __init__(self, twin: Subject) -> None:
        self._twin, self._network = twin, twin.network
        if not self._network.training:
            self._network.train()
        self._trains = {module for module in self._network.modules() if module.training}
        for module in self._network.modules():
            module.training = False
        # the functions that normalise go by the mode of the module that calls them
        self._switched = {module for module in self._trains if _normalises(module)}
        self._running = {
            id(buffer): buffer.detach().to("cpu", torch.float64)
            for buffer in self._network.buffers()
            if buffer.dim() == 1
        }
        self._tallies: dict[str, Tally] = {}
        self._refused: dict[int, str] = {}
        self._refusal = ""
        group = twin.process_group
        self._ranks = 1 if group is None else torch.distributed.get_world_size(group)

    def run(self) -> Passes:
        comparison = Comparison()
        fewest = None
        for place, batch in enumerate(self._twin.batches):
            samples = samples_in(batch)
            inference = None
            if place < _COMPARED or fewest is None or samples < fewest:
                inference = self._infer(batch)
                fewest = samples if fewest is None else min(samples, fewest)
            if self._refusal:
                self._refused[place], self._refusal = self._refusal, ""
                continue
            training = self._train(batch)
            if place < _COMPARED and inference is not None:
                losses = self._loss(batch, training), self._loss(batch, inference)
                comparison.add(batch, training, inference, *losses)
        met = self._tallies.values()
        return Passes(
            self._refused,
            tuple(tally.facts() for tally in met),
            self._running_facts(),
            comparison.facts() if comparison.batches else None,
        )

    def _infer(self, batch: Any) -> Any:
        ones: list[Sight] = []
        last: list[Sight] = []

        def see(sight: Sight) -> None:
            tally = self._tally(sight)
            tally.meet(sight)
            tally.in_inference |= sight.by_batch
            last[:] = [tally.sight]
            if _is_of_one(sight) and (sight.by_batch or self._will_train(sight)):
                ones.append(sight)

        try:
            with untouched(self._network, ()), sighted(self._network, see):
                outputs = self._twin.outputs(batch)
        except Exception:
            # without running statistics PyTorch refuses one value per channel in inference too
            if not (ones and ones[-1].by_batch and ones[-1].layer == last[0].layer):
                raise
            outputs = None
        self._refusal = _refusal(ones[0]) if ones else ""
        return outputs

    def _train(self, batch: Any) -> Any:
        def see(sight: Sight) -> None:
            if not sight.x.numel():
                return
            tally = self._tally(sight)
            tally.in_training |= sight.by_batch
            tally.add(sight, self._running_of(sight))

        with untouched(self._network, ()), sighted(self._network, see):
            for module in self._switched:
                module.training = True
            return self._twin.outputs(batch)

    def _tally(self, sight: Sight) -> Tally:
        return self._tallies.setdefault(sight.layer, Tally(sight, self._ranks))

    def _will_train(self, sight: Sight) -> bool:
        return sight.module in self._trains and not is_frozen(sight.module)

    def _running_of(self, sight: Sight) -> tuple[Tensor, Tensor] | None:
        """The running statistics as they came: a second call of the same layer finds others."""
        mean, variance = self._running.get(id(sight.running_mean)), self._running.get(id(sight.running_var))
        return None if mean is None or variance is None else (mean, variance)

    def _running_facts(self) -> tuple[RunningFacts, ...]:
        untrained = _is_as_built(self._network, self._twin)
        facts = []
        for tally in self._tallies.values():
            running = self._running_of(tally.sight)
            if running is None or not tally.calls:
                continue
            count = getattr(tally.sight.module, "num_batches_tracked", None)
            tracked = None if count is None else int(count)
            found = running_facts(tally, running, tracked, untrained=untrained)
            facts += [] if found is None else [found]
        return tuple(facts)

    def _loss(self, batch: Any, outputs: Any) -> float:
        try:
            with torch.no_grad():
                return float(self._twin.loss_of(batch, outputs))
        except NoLossError:
            return float("nan")


def _normalises(module: nn.Module) -> bool:
    return is_normaliser(module) or any(name.endswith("running_mean") for name in module._buffers)


def _is_of_one(sight: Sight) -> bool:
    return sight.elements == 1 and sight.centred and not sight.synchronised and _is_by_channel(sight)


def _is_by_channel(sight: Sight) -> bool:
    return isinstance(sight.module, _NormBase) or (
        sight.bare and sight.kind in ("batch_norm", "instance_norm")
    )


def _refusal(sight: Sight) -> str:
    return (
        f"layer {sight.layer!r} ({sight.kind}) is given one value per channel, {tuple(sight.x.shape)}, whose "
        "variance is unknown: PyTorch refuses that in training"
    )


def _is_as_built(network: nn.Module, twin: Subject) -> bool:
    """Whether nothing says that the network was ever trained."""
    if twin.optimiser is not None and twin.optimiser.state:
        return False
    for module in find_normalisers(network).values():
        count = getattr(module, "num_batches_tracked", None)
        if count is not None and int(count):
            return False
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(weight, Tensor) and bool((weight != weight.flatten()[:1]).any()):
            return False
        if isinstance(bias, Tensor) and bool(bias.any()):
            return False
    return True
