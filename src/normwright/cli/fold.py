"""`normwright fold`: a network without the normalisers that other layers can take in."""

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
    Data,
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
from normwright.lab.weights import PROGRAMS

EXAMPLES = """\
[bold]Examples[/bold]

To a program that runs without the function, on random input of a shape:
  normwright fold nets.py:net a.pt --example 1,3,224,224 --out net.pt2

and in another process:
  network = torch.export.load("net.pt2").module()
  network(images)

To ONNX, measured on your own images:
  normwright fold nets.py:net a.pt --data images:photos --out net.onnx
"""


# What the commands share is read from the context: see `Act`.
def fold(
    context: typer.Context,
    network: Network,
    checkpoint: Checkpoint,
    out: Annotated[
        Path | None,
        typer.Option(
            help=".pt2, a program of torch.export, or .onnx: both run without the function, on batches of "
            "any size, and give tensors in dictionaries or tuples.",
            show_default=False,
        ),
    ] = None,
    example: Example = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="The largest error on the example. [dim](4 times that of the unfolded network)[/dim]",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
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
    """Fold normalisers into the layers before or after them, and measure what that changes.

    A folded network has other layers than the function builds, so it is written as a program.
    """

    def verb(given: Given) -> Done:
        from normwright.cli.examples import first_example, random_example
        from normwright.network.calling import call_of
        from normwright.network.folding.fold import fold_with_report

        if example is not None:
            shown: Any = random_example(given.network, example)
        else:
            shown = first_example(given.network, given.batches.quietly() if given.batches else ())
        folded, report = fold_with_report(given.network, shown, tolerance=tolerance, inplace=True)

        def write(path: Path) -> Sequence[str]:
            from normwright.lab.weights.program import write_program

            call = call_of(shown)
            return write_program(folded, path, call.args, call.named)

        return Done(report, write, _use)

    def check_example() -> None:
        if example is None and data is None:
            raise typer.BadParameter("an example of the input is needed: either --example N,C,H,W or --data")
        if example is not None and data is not None:
            raise typer.BadParameter("one example of the input is needed, but --example and --data both came")

    def check_error() -> None:
        from normwright.network.folding.fold import check_tolerance

        check_tolerance(tolerance)

    Act(context, PROGRAMS, checks=(check_example, check_error)).run(verb)


def _use(path: Path) -> tuple[str, ...]:
    if path.suffix == ".onnx":
        return (f"session = onnxruntime.InferenceSession({str(path)!r})",)
    return (f"network = torch.export.load({str(path)!r}).module()",)
