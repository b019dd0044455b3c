"""`normwright batch-size`: the batch size from which on training is no faster."""

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
from normwright.cli.lists import Integers, integers

if TYPE_CHECKING:
    from normwright.cli.progress import Display
    from normwright.lab.batch_size.records import BatchSizes

EXAMPLES = """\
[bold]Examples[/bold]

A ResNet on Fashion-MNIST, and a page with the curves:
  normwright batch-size resnet20 --data fashion-mnist --out sizes.html

Your own network and batches, at sizes of your own:
  normwright batch-size nets.py:net --data data.py:loader --sizes 24,48,96
"""


def batch_size(
    context: typer.Context,
    network: Network,
    data: Data,
    sizes: Annotated[
        Integers | None,
        measuring(
            "The sizes to run, all of them.", "1,2,4,… until it levels off", parser=integers, metavar="INT,…"
        ),
    ] = None,
    tolerance: Annotated[
        float | None, measuring("Share of the best rate that the size to take may lack.", 0.05)
    ] = None,
    relative_error: Annotated[
        float | None, measuring("How well each rate is to be known: half of its interval, over it.", 0.02)
    ] = None,
    seconds: Annotated[
        float | None, measuring("Of timed steps for a size that is not known before.", 3)
    ] = None,
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
    """Find the batch size from which on training is no faster, and how noisy its moments are.

    Training steps are timed at growing sizes until samples per second level off. Only a size that was run is
    recommended. Nothing is trained for good.
    """
    asked = arguments_of(context)

    def look(display: Display) -> BatchSizes:
        from normwright.lab.batch_size.find import find_batch_size

        return find_batch_size(**asked, on_stage=display.stage)

    def write(found: BatchSizes, path: Path) -> None:
        from normwright.report.advice import write_batch_sizes

        write_batch_sizes(found, path)

    Advise(out, force, as_json, threads).run(look, write)
