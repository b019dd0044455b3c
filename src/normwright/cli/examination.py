"""One examination on the command line: build, examine, mend, print and write."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from normwright.cli.doctor_outputs import Outputs
from normwright.cli.lines import Lines
from normwright.cli.stopping import nothing_written, stops_told
from normwright.cli.user_errors import user_errors_shown
from normwright.errors import OptionError, unknown_name
from normwright.network.counting import how_many

if TYPE_CHECKING:
    from normwright.doctor.diagnosis import Diagnosis
    from normwright.doctor.rule import Rule
    from normwright.doctor.subject import Subject
    from normwright.doctor.treatments.mending import Mending
    from normwright.lab.batches import Batches
    from normwright.lab.networks.named_network import NamedNetwork


@dataclass(frozen=True)
class Training:
    """How the network is trained: see the options of these names."""

    loss: str | None
    optimiser: str | None
    settings: Mapping[str, float | None]
    accumulation: int
    averaged: bool
    padding: str | None
    forward: str | None

    def optimiser_of(self, network: Any) -> Any:
        """The optimiser of the network, or None."""
        from normwright.lab.optimisation import optimiser_named

        if self.optimiser is not None:
            return optimiser_named(self.optimiser, network, **self.settings)
        for setting, value in self.settings.items():
            if value is not None:
                raise OptionError(
                    f"--{setting.replace('_', '-')} goes with --optimiser, which did not come: add "
                    "--optimiser sgd, or the one that you train with"
                )
        return None


@dataclass(frozen=True)
class Asked:
    """One examination: see the options of these names."""

    network: str
    norm: str | None
    checkpoint: Path | None
    key: str | None
    device: str
    steps: int
    rules: tuple[str, ...] | None
    training: Training
    fix: bool
    fix_only: tuple[str, ...] | None
    seed: int

    def chosen_rules(self) -> list[Rule]:
        """The rules that are asked.

        Raises:
            OptionError: an unknown name.
        """
        from normwright.doctor.rule import all_rules

        known = all_rules()
        for name in (*(self.rules or ()), *(self.fix_only or ())):
            if name not in known:
                raise unknown_name("rule", name, known)
        return [rule for name, rule in known.items() if self.rules is None or name in self.rules]

    def build(self, open_data: Callable[[], Batches]) -> tuple[NamedNetwork, Subject]:
        """Reads the checkpoint, and builds the network, its optimiser and its batches."""
        import torch

        from normwright.doctor.subject import subject_of
        from normwright.lab.any_loss import loss_of_any
        from normwright.lab.devices import device_of
        from normwright.lab.networks.named_network import NamedNetwork
        from normwright.lab.user_code import resolve
        from normwright.lab.weights.fit import fit
        from normwright.lab.weights.read import read_weights

        device = device_of(self.device)
        weights = None if self.checkpoint is None else read_weights(self.checkpoint, key=self.key)
        training = self.training
        loss, forward, padding = (
            loss_of_any(training.loss),
            None if training.forward is None else resolve(training.forward),
            None if training.padding is None else resolve(training.padding),
        )
        batches = open_data()
        named = NamedNetwork(self.network, self.norm, batches.sample_shape, batches.classes)
        torch.manual_seed(self.seed)
        network = named.build()
        for note in () if weights is None else fit(network, weights):
            typer.echo(f"note: {note}", err=True)
        network.to(device)
        Lines(sys.stderr).stage(f"reading up to {how_many(self.steps, 'batch')}")
        subject = subject_of(
            network,
            batches.loader,
            most=self.steps,
            loss=loss,
            optimiser=training.optimiser_of(network),
            forward_fn=forward,
            accumulation=training.accumulation,
            padding=padding,
            averaged=training.averaged,
        )
        return named, subject


def run(asked: Asked, outputs: Outputs, open_data: Callable[[], Batches], options: Mapping[str, str]) -> None:
    """Examines a network as asked, prints what was found, and writes what was asked for.

    Args:
        asked, outputs: what the user asked for.
        open_data: makes the batches.
        options: of the command, by the names of the arguments that they become.
    Raises:
        NormwrightError: what was asked for cannot be done.
        typer.Exit: the user's code failed (1), `fail_on` is met (3), or Ctrl-C (130).
    """
    outputs.check()
    rules = asked.chosen_rules()
    written: list[str] = []

    def left() -> str:
        return f"only {' and '.join(written)} was written" if written else nothing_written()

    with stops_told(left):
        with user_errors_shown(options, as_json=outputs.as_json):
            named, subject = asked.build(open_data)
            diagnosis, mending = _examined(asked, subject, rules)
        outputs.show(diagnosis, mending)
        for path in outputs.write(diagnosis, mending, named.where):
            written.append(str(path))
            typer.echo(f"written: {path}", err=outputs.as_json)
    outputs.fail(diagnosis)


def _examined(asked: Asked, subject: Subject, rules: list[Rule]) -> tuple[Diagnosis, Mending | None]:
    from normwright.doctor.diagnose import examine
    from normwright.doctor.treatments.mending import mend

    tell = Lines(sys.stderr).stage

    def on_stage(stage: str) -> None:
        tell(f"  {stage}")

    tell(f"examining {asked.network} by {how_many(len(rules), 'rule')}")
    # by the name that the user knows it by
    diagnosis = dataclasses.replace(examine(subject, rules, on_stage), network=asked.network)
    if not asked.fix:
        return diagnosis, None
    tell("mending a copy")
    return diagnosis, mend(subject, diagnosis, rules, asked.fix_only, on_stage)
