"""The arguments that `normwright batch-size` and `normwright lr` share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from normwright.cli.acting_options import DATA_SETS
from normwright.cli.options import any_of, of_data, of_network, of_training, option
from normwright.lab.recipe import ACTIVATIONS, INITIALISATIONS, NORMS, OPTIMISERS, PLACES

NETWORKS = ("mlp", "lenet", "vgg", "resnet20", "lstm")

# Options that are not arguments of the Python functions.
COMMAND_ONLY = ("out", "force", "as_json", "threads")

measuring = partial(option, panel="Measuring")

Network = Annotated[
    str,
    typer.Argument(
        help=f"{any_of(NETWORKS)}, or your own path/to/file.py:function, called without arguments or, if it "
        "needs them, with (sample_shape, classes).",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(DATA_SETS)}, or your own path/to/file.py:function, which returns batches of (x, "
        "labels) (a DataLoader, a generator), a data set, or (x_train, y_train, x_test, y_test).",
        rich_help_panel="Data",
        show_default=False,
    ),
]
Norm = Annotated[
    str | None,
    typer.Option(
        help=f"The network's normaliser, {any_of(NORMS)}. [dim](batch, or what your own network holds)[/dim]",
        rich_help_panel="Network",
        show_default=False,
    ),
]
Depth = Annotated[int | None, of_network("depth", "Hidden layers of mlp, layers of lstm.")]
Width = Annotated[int | None, of_network("width", "Units per layer; first channels of vgg.")]
Activation = Annotated[str | None, of_network("activation", f"{any_of(ACTIVATIONS)}.")]
Place = Annotated[str | None, of_network("place", f"The normaliser {any_of(PLACES)} the activation.")]
Initialisation = Annotated[
    str | None,
    of_network(
        "initialisation",
        f"{any_of(INITIALISATIONS)}; own leaves a network's weights be, and is the default for yours.",
    ),
]
InitStd = Annotated[float | None, of_network("init_std", "Standard deviation of normal.")]
Dropout = Annotated[float | None, of_network("dropout", "Probability.")]
Groups = Annotated[int | None, of_network("groups", "The most groups of group norm.")]
GhostSize = Annotated[int | None, of_network("ghost_size", "Samples in a virtual batch of ghost norm.")]
Affine = Annotated[bool | None, of_network("affine", "Whether normalisers have a weight and a bias.")]
ImageSize = Annotated[int | None, of_data("image_size", "Pixels that images:DIR scales height and width to.")]
DataDir = Annotated[
    Path | None, option("Where data files are looked for first.", "NORMWRIGHT_DATA", panel="Data")
]
Loss = Annotated[str | None, of_training("loss", "cross_entropy, mse, or your own file.py:function.")]
Optimiser = Annotated[str | None, of_training("optimiser", f"{any_of(OPTIMISERS)}.")]
Momentum = Annotated[float | None, of_training("momentum", "Of sgd.")]
WeightDecay = Annotated[float | None, of_training("weight_decay", "Of all parameters.")]
Threads = Annotated[int | None, measuring("CPU threads.", "PyTorch's choice")]
Device = Annotated[str | None, measuring("auto, cpu or cuda.", "auto")]
Out = Annotated[
    Path | None,
    typer.Option(help="The page to write, with the figures, as FILE.html.", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file that --out names.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; all else goes to the standard error.")]


def arguments_of(context: typer.Context) -> dict[str, Any]:
    """What the Python function is called with: the options that were given; the rest keep its defaults."""
    given = {name: value for name, value in context.params.items() if value is not None}
    return {name: value for name, value in given.items() if name not in COMMAND_ONLY}
