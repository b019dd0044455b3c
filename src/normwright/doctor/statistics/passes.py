"""Runs a copy of a network, its weights as they came, with its normalisers in either mode."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from normwright.doctor.missing import SkipError, part_or_missing
from normwright.doctor.random_states import random_states_kept
from normwright.doctor.statistics.company import CompanyFacts, company_of
from normwright.doctor.statistics.drift import Drift
from normwright.doctor.statistics.modes import Comparison, ModeFacts, uninformed
from normwright.doctor.statistics.moments import MomentFacts
from normwright.doctor.statistics.padding import PaddingTally
from normwright.doctor.statistics.running import RunningFacts, running_facts
from normwright.doctor.statistics.sight import Sight
from normwright.doctor.statistics.sights import sighted
from normwright.doctor.statistics.tally import Tally
from normwright.doctor.subject import Subject
from normwright.errors import NormwrightError
from normwright.network.copying import check_holds_numbers
from normwright.network.frozen_class import is_frozen
from normwright.network.walk import is_normaliser
from normwright.statistics.batches import samples_in
from normwright.statistics.untouched import untouched

# Both modes are compared on this many batches: a forward costs a third of a step. Moments are read on all.
_COMPARED = 4


@dataclass(frozen=True)
class RefusedBatch:
    """A batch that the network cannot be trained on.

    Args:
        place: counted from 0.
        layer: that refuses it.
        because: why.
    """

    place: int
    layer: str
    because: str


@dataclass(frozen=True, eq=False)
class Passes:
    """What the passes showed.

    Args:
        subject: that was looked at.
        refused: the batches that the network cannot be trained on.
        tallies: of each normaliser, in the order of the forward pass.
        modes: the outputs compared; None where every batch is refused.
        kept: running statistics as they came, by normaliser.
        padding: what padded positions did to moments.
        company: a batch against its halves; may be `Missing`.
    """

    subject: Subject
    refused: tuple[RefusedBatch, ...]
    tallies: dict[str, Tally]
    modes: ModeFacts | None
    kept: dict[str, Kept]
    padding: PaddingTally
    company: CompanyFacts

    @property
    def why(self) -> str:
        """Why no batch can be trained on, or ""."""
        return "" if self.modes is not None else self.refused[0].because

    @property
    def trainable(self) -> Subject | None:
        """The subject with the batches that it can be trained on, or None."""
        if not self.refused:
            return self.subject
        places = {refused.place for refused in self.refused}
        batches = tuple(batch for place, batch in enumerate(self.subject.batches) if place not in places)
        return dataclasses.replace(self.subject, batches=batches) if batches else None

    def need_trainable(self) -> Subject:
        """Raises SkipError where there is none."""
        trainable = self.trainable
        if trainable is None:
            raise SkipError(self.why)
        return trainable

    def need_modes(self) -> ModeFacts:
        """Raises SkipError where no batch could be run in training mode."""
        if self.modes is None:
            raise SkipError(self.why)
        return self.modes

    def moments(self) -> tuple[MomentFacts, ...]:
        """Of each normaliser."""
        return tuple(tally.facts() for tally in self.tallies.values())

    def means_and_variances(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Of each normaliser that takes the batch's moments, those of each call in training mode."""
        return {
            name: tally.means_and_variances()
            for name, tally in self.tallies.items()
            if tally.in_training and not tally.sight.per_sample
        }

    def running(self, drift: Drift) -> tuple[RunningFacts, ...]:
        """Of each normaliser that keeps running statistics.

        Raises:
            SkipError: no batch could be run in training mode.
        """
        self.need_modes()
        found = (
            running_facts(
                self.tallies[name],
                (kept.mean, kept.variance),
                kept.tracked,
                drift.velocity(name),
                untrained=kept.untrained,
            )
            for name, kept in self.kept.items()
        )
        return tuple(facts for facts in found if facts is not None)


@dataclass(frozen=True, eq=False)
class Kept:
    """What a normaliser kept.

    Args:
        mean, variance: (C,), in float64; of whitening, (G, d, d) covariances for the variances.
        tracked: batches that moved them, or None.
        untrained: nothing says that the normaliser was ever trained.
    """

    mean: Tensor
    variance: Tensor
    tracked: int | None
    untrained: bool


def run_passes(subject: Subject) -> Passes:
    """Runs the passes on a twin of the subject.

    Raises:
        OptionError: the network is on the device meta, or the loss is not a scalar.
        Whatever the network raises.
    """
    check_holds_numbers(subject.network)
    return _Runner(subject).run()


class _Runner:
    """A twin whose modules are held in inference mode, but for its normalisers where they train."""

    def __init__(self, subject: Subject) -> None:
        twin = subject.twin()
        self._subject, self._twin, self._network = subject, twin, twin.network
        if not self._network.training:
            self._network.train()
        self._trains = {module for module in self._network.modules() if module.training}
        for module in self._network.modules():
            module.training = False
        # the functions that normalise go by the mode of the module that calls them
        self._switched = {module for module in self._trains if _normalises(module)}
        self._running = {
            id(buffer): buffer.detach().to("cpu", torch.float64, copy=True)
            for name, buffer in self._network.named_buffers()
            if buffer.dim() == 1 or name.endswith("running_covariance")
        }
        self._tallies: dict[str, Tally] = {}
        self._refused: list[RefusedBatch] = []
        self._unanswered: set[int] = set()  # places of batches that are refused in inference mode too
        self._ones: list[Sight] = []
        self._padding = PaddingTally(twin)
        group = twin.process_group
        self._ranks = 1 if group is None else torch.distributed.get_world_size(group)

    def run(self) -> Passes:
        comparison = Comparison()
        fewest, refused = math.inf, 0  # samples: of the smallest batch so far, of the largest that is refused
        for place, batch in enumerate(self._twin.batches):
            samples = samples_in(batch)
            inference, self._ones = None, []
            if place < _COMPARED or samples < fewest or samples <= refused:
                with random_states_kept():  # training mode draws the same noise, as of a variational encoder
                    inference = self._infer(batch)
                fewest = min(samples, fewest)
            if self._ones:
                refused = max(samples, refused)
                if inference is None:
                    self._unanswered.add(place)
                self._refused.append(_refusal(place, self._ones[0]))
                continue
            training = self._train(batch)
            if place < _COMPARED and inference is not None:
                losses = self._loss(batch, training), self._loss(batch, inference)
                comparison.add(batch, training, inference, (*losses, self._loss_uninformed(batch, training)))
        return Passes(
            self._subject,
            tuple(self._refused),
            self._tallies,
            comparison.facts() if comparison.batches else None,
            self._kept(),
            self._padding,
            part_or_missing(lambda: company_of(self._answered())),
        )

    def _answered(self) -> Subject:
        """The twin with the batches that it can be run on in inference mode."""
        batches = tuple(
            batch for place, batch in enumerate(self._twin.batches) if place not in self._unanswered
        )
        if not batches:
            raise SkipError(self._refused[0].because)
        return dataclasses.replace(self._twin, batches=batches)

    def _infer(self, batch: Any) -> Any:
        ones = self._ones = []
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
        return outputs

    def _train(self, batch: Any) -> Any:
        calls: Counter[str] = Counter()

        def see(sight: Sight) -> None:
            if not sight.x.numel():
                return
            tally = self._tally(sight)
            tally.in_training |= sight.by_batch
            tally.add(sight, self._running_of(sight), calls[sight.layer])
            calls[sight.layer] += 1
            self._padding.see(sight)

        self._padding.turn_to(batch)
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

    def _kept(self) -> dict[str, Kept]:
        found = {}
        for name, tally in self._tallies.items():
            running = self._running_of(tally.sight)
            if running is not None and tally.calls:
                module = tally.sight.module
                count = getattr(module, "num_batches_tracked", None)
                untrained = not count and _is_as_built(module, self._twin.optimiser)
                found[name] = Kept(*running, None if count is None else int(count), untrained)
        return found

    def _loss(self, batch: Any, outputs: Any) -> float:
        try:
            with torch.no_grad():
                return float(self._twin.loss_of(batch, outputs))
        except NormwrightError:
            raise
        except Exception:
            # There is none; or the network answers in another form in inference mode, without auxiliary
            # scores or with detections in place of losses. What a loss raises of itself, the trial raises.
            return math.nan

    def _loss_uninformed(self, batch: Any, outputs: Any) -> float:
        made_up = uninformed(outputs)
        unknown = self._twin.loss is None or made_up is outputs
        return math.nan if unknown else self._loss(batch, made_up)


def _normalises(module: nn.Module) -> bool:
    return is_normaliser(module) or any(name.endswith("running_mean") for name in module._buffers)


def _is_of_one(sight: Sight) -> bool:
    return sight.elements == 1 and sight.centred and not sight.synchronised and _is_by_channel(sight)


def _is_by_channel(sight: Sight) -> bool:
    return isinstance(sight.module, _NormBase) or (
        sight.bare and sight.kind in ("batch_norm", "instance_norm")
    )


def _refusal(place: int, sight: Sight) -> RefusedBatch:
    return RefusedBatch(
        place,
        sight.layer,
        f"layer {sight.layer!r} ({sight.kind}) is given one value per channel, {tuple(sight.x.shape)}, whose "
        "variance is unknown: PyTorch refuses that in training",
    )


def _is_as_built(module: nn.Module, optimiser: Optimizer | None) -> bool:
    """Whether nothing says that a normaliser was ever trained."""
    own = [p for name in ("weight", "bias") if isinstance(p := getattr(module, name, None), nn.Parameter)]
    if optimiser is not None and any(optimiser.state.get(parameter) for parameter in own):
        return False
    return all(bool((parameter == parameter.flatten()[0]).all()) for parameter in own)
