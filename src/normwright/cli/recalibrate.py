"""`normwright recalibrate`: exact population statistics for a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from normwright.cli.acting import Act, Done, Given
from normwright.cli.acting_options import (
    AsJson,
    BatchSize,
    Checkpoint,
    Data,
    DataDir,
    Device,
    DryRun,
    Force,
    ImageSize,
    Key,
    Mean,
    Network,
    Split,
    Std,
)
from normwright.cli.weights import use, writer_of
from normwright.lab.weights import WEIGHTS

EXAMPLES = """\
[bold]Examples[/bold]

Statistics over the training images, in a folder per class:
  normwright recalibrate nets.py:net a.pt --data images:photos --out b.pt

Look first, over batches of your own (loader() returns a DataLoader):
  normwright recalibrate nets.py:net a.pt --data data.py:loader --dry-run
"""


# What the commands share is read from the context: see `Act`.
def recalibrate(
    context: typer.Context,
    network: Network,
    checkpoint: Checkpoint,
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint to write, .safetensors or .pt; network.load_state_dict takes it.",
            show_default=False,
        ),
    ] = None,
    estimator: Annotated[
        Literal["total", "within"],
        typer.Option(help="total, the variance of the whole set, or within, the mean of the batches'."),
    ] = "total",
    samples: Annotated[
        int | None, typer.Option(help="Stop after so many samples.", show_default=False)
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Stop when means and variances are known to this share of a deviation, of a variance.",
            show_default=False,
        ),
    ] = None,
    split: Split = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    mean: Mean = None,
    std: Std = None,
    data_dir: DataDir = None,
    key: Key = None,
    device: Device = "auto",
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Replace the running statistics of batch norm by those of the data, exactly.

    Nothing else in the checkpoint changes.
    """

    def verb(given: Given) -> Done:
        from normwright.statistics.recalibrate import recalibrate

        handle = recalibrate(
            given.network,
            given.batches or (),
            estimator=estimator,
            samples=samples,
            tolerance=tolerance,
        )
        return Done(handle.report, writer_of(given.network, "recalibrate"), use)

    def check_end() -> None:
        from normwright.statistics.recalibrate import check_samples

        check_samples(samples)

    def check_error() -> None:
        from normwright.statistics.recalibrate import check_tolerance

        check_tolerance(tolerance)

    Act(context, WEIGHTS, checks=(check_end, check_error)).run(verb)
