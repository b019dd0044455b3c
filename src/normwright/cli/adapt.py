"""`normwright adapt`: a trained network's statistics, moved to the domain of new data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

To photos of another camera, a folder per class (labels are not looked at):
  normwright adapt nets.py:net a.pt --data images:night --out night.pt

To batches of your own (loader() returns a DataLoader), seen first:
  normwright adapt nets.py:net a.pt --data data.py:loader --dry-run
"""


# What the commands share is read from the context: see `Act`.
def adapt(
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
    source_weight: Annotated[
        float | None,
        typer.Option(
            help="For how many samples the old statistics count; 0 forgets them. "
            "[dim](chosen for each layer)[/dim]",
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
    """Move the running statistics of batch norm to the domain of the data, without labels.

    Nothing else in the checkpoint changes. Where predictions would collapse, nothing is written.
    """

    def verb(given: Given) -> Done:
        from normwright.statistics.adapt import adapt

        handle = adapt(given.network, given.batches or (), source_weight=source_weight)
        return Done(handle.report, writer_of(given.network, "adapt"), use)

    def check() -> None:
        from normwright.statistics.adapter import check_source_weight

        check_source_weight(source_weight, {})

    Act(context, WEIGHTS, usual_split="test", checks=(check,)).run(verb)
