"""`normwright lr`: the learning rates that a network trains at, with its normalisers and without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normwright.cli.advice_options import (
    Activation,
    Affine,
    AsJson,
    Data,
    DataDir,
    Depth,
    Device,
    Dropout,
    Force,
    GhostSize,
    Groups,
    ImageSize,
    Initialisation,
    InitStd,
    Loss,
    Momentum,
    Network,
    Norm,
    Optimiser,
    Out,
    Place,
    Threads,
    WeightDecay,
    Width,
    arguments_of,
    measuring,
)
from normwright.cli.advising import Advise

if TYPE_CHECKING:
    from normwright.cli.progress import Display
    from normwright.lab.lr_range.records import LearningRates

EXAMPLES = """\
[bold]Examples[/bold]

LeNet on Fashion-MNIST at batch size 128, and a page with the curves:
  normwright lr lenet --data fashion-mnist --batch-size 128 --out rates.html

Your own network and batches, at learning rates up to 1:
  normwright lr nets.py:net --data data.py:loader --batch-size 32 --high 1
"""


def lr(
    context: typer.Context,
    network: Network,
    data: Data,
    batch_size: Annotated[
        int, typer.Option(help="Samples per step; normwright batch-size finds one.", show_default=False)
    ],
    low: Annotated[float | None, measuring("The first learning rate.", "1e-5")] = None,
    high: Annotated[float | None, measuring("The last.", 10)] = None,
    steps: Annotated[int | None, measuring("How many rates, one step each.", 100)] = None,
    seeds: Annotated[int | None, measuring("Sweeps of each network.", 3)] = None,
    threads: Threads = None,
    device: Device = None,
    norm: Norm = None,
    depth: Depth = None,
    width: Width = None,
    activation: Activation = None,
    place: Place = None,
    initialisation: Initialisation = None,
    init_std: InitStd = None,
    dropout: Dropout = None,
    groups: Groups = None,
    ghost_size: GhostSize = None,
    affine: Affine = None,
    image_size: ImageSize = None,
    data_dir: DataDir = None,
    loss: Loss = None,
    optimiser: Optimiser = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Find the learning rates that a network trains at, with its normalisers and without.

    The rate is raised step by step. The usable range goes from where the loss begins to fall to where it
    rises again. Only a rate that was run is recommended. Nothing is trained for good.
    """
    asked = arguments_of(context)

    def look(display: Display) -> LearningRates:
        from normwright.lab.lr_range.range_test import lr_range_test

        return lr_range_test(**asked, on_stage=display.stage, on_progress=display.runs)

    def write(found: LearningRates, path: Path) -> None:
        from normwright.report.advice import write_learning_rates

        write_learning_rates(found, path)

    Advise(out, force, as_json, threads).run(look, write)
