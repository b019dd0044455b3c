"""The options of `normwright doctor` that no other command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from normwright.cli.compare import NETWORKS
from normwright.cli.lists import Words, words
from normwright.cli.options import any_of

EXAMPLES = """\
[bold]Examples[/bold]

A built-in network on built-in data:
  normwright doctor lenet --data fashion-mnist --optimiser sgd --lr 0.1

Your own network, its checkpoint and batches (loader() returns a DataLoader):
  normwright doctor nets.py:net --checkpoint a.pt --data data.py:loader

A page with figures:
  normwright doctor nets.py:net --data data.py:loader --out report.html

In CI: fail on a warning, and show the findings beside the code:
  normwright doctor nets.py:net --data data.py:loader --fail-on warning
  normwright doctor nets.py:net --data data.py:loader --sarif doctor.sarif

Mend what can be mended, on a copy:
  normwright doctor nets.py:net --data data.py:loader --out-checkpoint b.pt

Which rules there are:
  normwright doctor --list
"""

TRAINING, FIXING, OUTPUT = "Training", "Fixing", "Output"


def _own(help_: str, panel: str = TRAINING, **kind: object) -> object:
    return typer.Option(help=help_, rich_help_panel=panel, show_default=False, **kind)  # type: ignore[arg-type]


Network = Annotated[
    str | None,
    typer.Argument(
        help=f"{any_of(NETWORKS)}, or the function that builds your own, package.module:function or "
        "path/to/file.py:function. It is called without arguments, or, if it needs them, with (sample_shape, "
        "classes) of --data.",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Its weights: safetensors, or a state dict by torch.save. Pickled code is never run. "
        "[dim](as the function makes them)[/dim]",
        show_default=False,
    ),
]
Norm = Annotated[str | None, _own("The normaliser of a built-in network. [dim](batch)[/dim]", "Options")]
Loss = Annotated[
    str | None,
    _own(
        "cross_entropy (of the outputs or their .logits), mse, own (what the network returns as .loss), or "
        "your own file.py:function(outputs, target). [dim](own if there is one, else cross_entropy)[/dim]"
    ),
]
Optimiser = Annotated[
    str | None,
    _own(
        "sgd, adamw, or your own file.py:function(network). "
        "[dim](none: rules about updates are skipped)[/dim]"
    ),
]
Lr = Annotated[float | None, _own("Learning rate. [dim](PyTorch's default)[/dim]")]
Momentum = Annotated[float | None, _own("Of sgd. [dim](0)[/dim]")]
WeightDecay = Annotated[float | None, _own("Of all parameters. [dim](PyTorch's default)[/dim]")]
Accumulation = Annotated[
    int, typer.Option(help="Mini-batches for each step of the optimiser.", rich_help_panel=TRAINING)
]
Averaged = Annotated[
    bool,
    typer.Option(
        "--averaged", help="The checkpoint holds averaged weights (EMA, SWA).", rich_help_panel=TRAINING
    ),
]
Padding = Annotated[
    str | None, _own("file.py:function(batch), which tells padded positions: (N, L), true where padded.")
]
Forward = Annotated[str | None, _own("file.py:function(network, batch), called in place of network(input).")]
Steps = Annotated[int, typer.Option(help="Batches that are read, and trained on for a step each.")]
Rules = Annotated[
    Words | None,
    typer.Option(help="Only these. [dim](all)[/dim]", parser=words, metavar="RULE,…", show_default=False),
]
Fix = Annotated[
    bool,
    typer.Option(
        "--fix",
        help="Make every fix that is mechanical on a copy, and show the evidence before and after.",
        rich_help_panel=FIXING,
    ),
]
FixOnly = Annotated[
    Words | None,
    _own("The fixes of these rules only; --fix is then understood.", FIXING, parser=words, metavar="RULE,…"),
]
OutCheckpoint = Annotated[
    Path | None,
    _own(
        "Where the mended weights go, .safetensors or .pt. It says where they are others than the function "
        "builds; --fix is then understood.",
        FIXING,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace the output checkpoint if there is one.", rich_help_panel=FIXING),
]
Out = Annotated[Path | None, _own("Write the report, one .html page; an old one is replaced.", OUTPUT)]
Sarif = Annotated[
    Path | None,
    _own("Write what the code alone tells as SARIF 2.1.0, for code review; an old file is replaced.", OUTPUT),
]
FailOn = Annotated[
    Literal["note", "warning", "error"] | None,
    _own("Exit with status 3 if something this grave, or graver, was found.", OUTPUT),
]
EveryLayer = Annotated[
    bool,
    typer.Option(
        "--every-layer", help="Show every layer, not the worst three of each rule.", rich_help_panel=OUTPUT
    ),
]
ListRules = Annotated[
    bool, typer.Option("--list", help="Say which rules there are, and stop.", rich_help_panel=OUTPUT)
]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="With --list: as Markdown.", rich_help_panel=OUTPUT)
]
