"""`normwright convert`: a network with normalisers of another kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from normwright.cli.acting import Act, Done, Given
from normwright.cli.acting_options import (
    AsJson,
    BatchSize,
    Checkpoint,
    DataDir,
    Device,
    DryRun,
    Example,
    Force,
    ImageSize,
    Key,
    Mean,
    Network,
    Split,
    Std,
)
from normwright.cli.lists import Words, words
from normwright.cli.weights import use, writer_of
from normwright.lab.weights import WEIGHTS

EXAMPLES = """\
[bold]Examples[/bold]

From batch to group norm, fitted to what the network computed on the digits:
  normwright convert nets.py:net a.pt --to group --data digits --out b.pt

and in another process, as the command says when it has written:
  network = normwright.convert(net(), "group")
  network.load_state_dict(torch.load("b.pt", weights_only=True))

What would be lost, without writing:
  normwright convert nets.py:net a.pt --to instance --dry-run
"""


# What the commands share is read from the context: see `Act`.
def convert(
    context: typer.Context,
    network: Network,
    checkpoint: Checkpoint,
    to: Annotated[
        str,
        typer.Option(
            help="batch, synchronised, frozen, renormalised, ghost, split, group, instance, layer or rms.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint to write, .safetensors or .pt, for the network that nw.convert makes of the "
            "function's.",
            show_default=False,
        ),
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(
            help="The most groups of group norm; fewer where one would be too small. [dim](32)[/dim]",
            show_default=False,
        ),
    ] = None,
    ghost_size: Annotated[
        int | None,
        typer.Option(
            help="Samples in a virtual batch of ghost norm. [dim](32)[/dim]", show_default=False, min=1
        ),
    ] = None,
    names: Annotated[
        Words | None,
        typer.Option(
            help="Which normalisers, by qualified name. [dim](every batch norm)[/dim]",
            parser=words,
            metavar="NAME,…",
            show_default=False,
        ),
    ] = None,
    of: Annotated[
        Words | None,
        typer.Option(
            help="Which normalisers, by kind. [dim](every batch norm)[/dim]",
            parser=words,
            metavar="KIND,…",
            show_default=False,
        ),
    ] = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Give up what the new kind cannot hold, and report it.")
    ] = False,
    example: Example = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Fit weight and bias to what the network computes on these: digits, fashion-mnist, mnist, "
            "cifar10, images:DIR, or your own path/to/file.py:function.",
            rich_help_panel="Data",
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
    """Turn normalisers into another kind, keeping all that the new kind can hold.

    What would be lost is refused, and nothing is written.
    """

    def verb(given: Given) -> Done:
        from normwright.cli.again import line_again
        from normwright.cli.examples import first_example, random_example
        from normwright.network.conversion.convert import convert_with_report

        shown: Any = None if example is None else random_example(given.network, example)
        options: dict[str, Any] = {
            "names": names, "of": of, "groups": groups, "ghost_size": ghost_size, "lossy": lossy
        }  # fmt: skip
        converted, report = convert_with_report(
            given.network, to, **options, example=shown, calibrate=given.batches, inplace=True
        )
        if shown is None and given.batches is not None:
            shown = first_example(converted, given.batches.quietly())
        line = line_again(converted, given.build, given.call, to, options, shown)

        def write(path: Path) -> Sequence[str]:
            writer_of(converted, "convert")(path)
            if not any(layer.notes for layer in report.layers):
                return ()
            return (f"What is set aside for the way back is not in {path}: keep {checkpoint}.",)

        return Done(report, write, lambda path: (line, *use(path)))

    def check_kinds() -> None:
        from normwright.network.conversion.select import checked_kinds

        checked_kinds(to, of)

    def check_numbers() -> None:
        from normwright.network.conversion.options import Options

        Options(to, groups, ghost_size)

    Act(context, WEIGHTS, checks=(check_kinds, check_numbers)).run(verb)
