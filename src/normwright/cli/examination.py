"""One examination on the command line: build, examine, mend, print and write."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from normwright.cli.lines import Lines, ReaderGone
from normwright.cli.outputs import check_output
from normwright.cli.user_errors import user_errors_shown
from normwright.errors import OptionError, unknown_name
from normwright.lab.weights import WEIGHTS

if TYPE_CHECKING:
    from normwright.doctor.diagnosis import Diagnosis
    from normwright.doctor.finding import Severity
    from normwright.doctor.subject import Subject
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


@dataclass(frozen=True)
class Outputs:
    """What is written and how it is shown: see the options of these names."""

    out: Path | None
    sarif: Path | None
    checkpoint: Path | None
    force: bool
    as_json: bool
    every_layer: bool
    fail_on: Severity | None

    def check(self) -> None:
        """Says before the work what would be said after it."""
        for option, path, endings, replace in (
            ("--out", self.out, (".html",), True),
            ("--sarif", self.sarif, (".sarif", ".json"), True),
            ("--out-checkpoint", self.checkpoint, WEIGHTS, self.force),
        ):
            if path is not None:
                check_output(option, path, endings, replace=replace)


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
    outputs: Outputs
    fix: bool
    fix_only: tuple[str, ...] | None


def run(asked: Asked, open_data: Callable[[], Batches], *, seed: int) -> None:
    """Examines a network as asked, prints what was found, and writes what was asked for.

    Raises:
        NormwrightError: what was asked for cannot be done.
        typer.Exit: the user's code failed (1), `fail_on` is met (1), or Ctrl-C (130).
    """
    asked.outputs.check()
    _check_rules(asked)
    try:
        with user_errors_shown(asked.outputs.as_json):
            _named, subject = _subject(asked, open_data, seed)
            diagnosis = _examine(asked, subject)
    except KeyboardInterrupt:
        typer.echo("\nstopped: nothing was written", err=True)
        raise typer.Exit(130) from None
    except ReaderGone as gone:
        raise BrokenPipeError(errno.EPIPE, "nobody reads the progress any more") from gone
    _print(asked, diagnosis)
    _fail(asked, diagnosis)


def _check_rules(asked: Asked) -> None:
    from normwright.doctor.rule import all_rules

    for name in (*(asked.rules or ()), *(asked.fix_only or ())):
        if name not in all_rules():
            raise unknown_name("rule", name, all_rules())


def _subject(asked: Asked, open_data: Callable[[], Batches], seed: int) -> tuple[NamedNetwork, Subject]:
    import torch

    from normwright.doctor.subject import subject_of
    from normwright.lab.any_loss import loss_of_any
    from normwright.lab.devices import device_of
    from normwright.lab.networks.named_network import NamedNetwork
    from normwright.lab.user_code import resolve
    from normwright.lab.weights.fit import fit
    from normwright.lab.weights.read import read_weights

    training = asked.training
    device = device_of(asked.device)
    weights = None if asked.checkpoint is None else read_weights(asked.checkpoint, key=asked.key)
    loss = loss_of_any(training.loss)
    batches = open_data()
    named = NamedNetwork(asked.network, asked.norm, batches.sample_shape, batches.classes)
    torch.manual_seed(seed)
    network = named.build()
    for note in () if weights is None else fit(network, weights):
        typer.echo(f"note: {note}", err=True)
    network.to(device)
    optimiser = _optimiser(training, network)
    Lines(sys.stderr).stage(f"reading up to {asked.steps} batches")
    subject = subject_of(
        network,
        batches.loader,
        most=asked.steps,
        loss=loss,
        optimiser=optimiser,
        forward_fn=None if training.forward is None else resolve(training.forward),
        accumulation=training.accumulation,
        padding=None if training.padding is None else resolve(training.padding),
        averaged=training.averaged,
    )
    return named, subject


def _optimiser(training: Training, network: Any) -> Any:
    from normwright.lab.optimisation import optimiser_named

    if training.optimiser is not None:
        return optimiser_named(training.optimiser, network, **training.settings)
    for setting, value in training.settings.items():
        if value is not None:
            option = "--" + setting.replace("_", "-")
            raise OptionError(f"{option} goes with --optimiser, which did not come: add --optimiser sgd")
    return None


def _examine(asked: Asked, subject: Subject) -> Diagnosis:
    from normwright.doctor.diagnose import examine
    from normwright.doctor.rule import all_rules

    rules = [rule for name, rule in all_rules().items() if asked.rules is None or name in asked.rules]
    Lines(sys.stderr).stage(f"examining {asked.network}")
    return examine(subject, rules)


def _print(asked: Asked, diagnosis: Diagnosis) -> None:
    from normwright.cli.tables import print_table
    from normwright.doctor.diagnosis import MOST

    if asked.outputs.as_json:
        typer.echo(diagnosis.to_json())
    else:
        print_table(diagnosis.table(None if asked.outputs.every_layer else MOST))


def _fail(asked: Asked, diagnosis: Diagnosis) -> None:
    """Exit status 1 where something as grave as asked about was found."""
    from normwright.doctor.finding import SEVERITIES

    least = asked.outputs.fail_on
    if least is None:
        return
    grave = [
        finding
        for finding in diagnosis.findings
        if SEVERITIES.index(finding.severity) <= SEVERITIES.index(least)
    ]
    if grave:
        typer.echo(f"failed: {len(grave)} of severity {least} or above (--fail-on {least})", err=True)
        raise typer.Exit(1)
