"""`normwright shift`: whether two data sets come from one distribution."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normwright.cli.acting_options import AsJson, DataDir, Device, ImageSize, Key, Mean, Std
from normwright.cli.options import any_of
from normwright.cli.outputs import FOUND
from normwright.cli.stopping import stops_told
from normwright.cli.user_errors import user_errors_shown
from normwright.cli.wording import in_options, options_of

if TYPE_CHECKING:
    from torch import nn

    from normwright.shift import ShiftReport

_KINDS = ("FILE.csv", "FILE.parquet", "FILE.npy", "images:DIR", "digits", "fashion-mnist", "mnist", "cifar10")

EXAMPLES = """\
[bold]Examples[/bold]

Last month's table against this month's, as a step of a pipeline:
  normwright shift may.csv june.csv --fail-on-shift

Photos of another camera, and what they do to a network trained on the first:
  normwright shift images:a images:b --network nets.py:net --checkpoint a.pt

The training images of a published set against its test images, labels too:
  normwright shift fashion-mnist fashion-mnist --with-labels
"""


def _option(help_: str, panel: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_, rich_help_panel=panel, **more)


def shift(
    context: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            help=f"The data to compare with: {any_of(_KINDS)}, or your own path/to/file.py:function.",
            show_default=False,
        ),
    ],
    current: Annotated[str, typer.Argument(help="The data in question, likewise.", show_default=False)],
    label: Annotated[
        str, _option("The column of a table that holds the class, from 0 on.", "Data", show_default=False)
    ] = "",
    with_labels: Annotated[
        bool, _option("Compare the labels, too, as one more column.", "Data", "--with-labels")
    ] = False,
    samples: Annotated[int, _option("The most that are drawn of each set.", "Data")] = 10_000,
    split: Annotated[
        str | None,
        _option(
            "train, validation, test or all. [dim](all of images:DIR; else train, for CURRENT test)[/dim]",
            "Data",
            show_default=False,
        ),
    ] = None,
    current_split: Annotated[
        str | None, _option("The split of CURRENT, where it is another.", "Data", show_default=False)
    ] = None,
    image_size: ImageSize = None,
    mean: Mean = None,
    std: Std = None,
    data_dir: DataDir = None,
    network: Annotated[
        str | None,
        _option(
            "The function that builds a network, package.module:function or path/to/file.py:function: shows "
            "where in it the shift begins, what it costs and whether adapt helps.",
            "Network",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        _option(
            "Its weights: safetensors, or a state dict by torch.save. Pickled code is never run.",
            "Network",
            show_default=False,
        ),
    ] = None,
    key: Key = None,
    device: Device = "auto",
    level: Annotated[float, typer.Option(help="How often a shift may be seen where there is none.")] = 0.05,
    alarm: Annotated[float, typer.Option(help="The least MCC that is a shift worth an alarm.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of all that is drawn; the same one gives the same figures.")] = 0,
    fail_on_shift: Annotated[
        bool,
        typer.Option("--fail-on-shift", help=f"Exit with status {FOUND} where the verdict is a shift."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell whether two data sets come from one distribution, what differs, and what to do.

    A classifier is asked to tell them apart. The verdict is a shift where it can (MCC at least --alarm) and
    chance does not explain it (p-value at most --level).
    """
    if (network is None) != (checkpoint is None):
        raise typer.BadParameter("--network and --checkpoint go together: name both, or neither")
    asked = {
        "label": label,
        "with_labels": with_labels,
        "samples": samples,
        "split": split,
        "current_split": current_split,
        "image_size": image_size,
        "mean": mean,
        "std": std,
        "data_dir": data_dir,
        "level": level,
        "alarm": alarm,
        "seed": seed,
    }
    options = options_of(context)
    with stops_told(), user_errors_shown(options, as_json=as_json):
        report, notes = _tested(reference, current, asked, network, checkpoint, key, device)
    _print(report, notes, options if as_json else None)
    if fail_on_shift and report.verdict == "shift":
        raise typer.Exit(FOUND)


def _tested(
    reference: str,
    current: str,
    asked: dict[str, Any],
    network: str | None,
    checkpoint: Path | None,
    key: str | None,
    device: str,
) -> tuple[ShiftReport, list[str]]:
    from normwright.cli.progress import display_on
    from normwright.lab.devices import device_of
    from normwright.lab.networks.own_network import OwnNetwork
    from normwright.lab.shifted import report_on
    from normwright.lab.weights.fit import fit
    from normwright.lab.weights.read import read_weights

    notes: list[str] = []
    build = None
    if network is not None and checkpoint is not None:
        chosen, weights = device_of(device), read_weights(checkpoint, key=key)

        def build(shape: tuple[int, ...] | None, classes: int | None) -> nn.Module:
            built = OwnNetwork(network, shape, classes).build()
            notes.extend(fit(built, weights))
            return built.to(chosen)

    with contextlib.closing(display_on(sys.stderr)) as display:
        return report_on(reference, current, build, **asked, on_stage=display.stage), notes


def _print(report: ShiftReport, notes: list[str], as_json: dict[str, str] | None) -> None:
    from normwright.cli.tables import print_json, print_table

    if as_json is not None:
        print_json(in_options(dataclasses.asdict(report), as_json))
    else:
        print_table(report.table())
        if report.network is not None:
            typer.echo("")
            print_table(report.network.table())
    for note in notes:
        typer.echo(f"note: {note}", err=as_json is not None)
