"""`normwright compare`: one network under every normaliser."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normwright.cli.lists import Integers, Numbers, Words, integers, numbers, words
from normwright.cli.options import OUT, any_of, of_data, of_network, of_training, option
from normwright.cli.outputs import folder
from normwright.cli.stopping import stops_told
from normwright.cli.user_errors import user_errors_shown
from normwright.cli.wording import options_of
from normwright.lab.recipe import ACTIVATIONS, INITIALISATIONS, NORMS, OPTIMISERS, PLACES, SCHEDULES

if TYPE_CHECKING:
    from normwright.lab.records import Comparison

NETWORKS = ("mlp", "lenet", "vgg", "resnet20", "lstm")
DATA_SETS = ("digits", "fashion-mnist", "mnist", "cifar10", "images:DIR")

# Options that take a list are named in the singular, and the arguments that they become in the plural.
_KEYWORDS = {"norm": "norms", "batch_size": "batch_sizes", "lr": "lrs"}


# The arguments are read from the context, so that what was not given keeps the default of `nw.compare`.
def compare(
    context: typer.Context,
    network: Annotated[
        str | None,
        typer.Argument(
            help=f"{any_of(NETWORKS)}, or your own path/to/file.py:function. It is called without arguments, "
            "or, if it needs them, with (sample_shape, classes) of --data. [dim](mlp)[/dim]"
        ),
    ] = None,
    data: Annotated[
        str | None,
        option(f"{any_of(DATA_SETS)}, or your own path/to/file.py:function.", "digits"),
    ] = None,
    norm: Annotated[
        Words | None,
        option(f"Of {', '.join(NORMS)}.", "none,batch,layer,group,rms", parser=words, metavar="NAME,…"),
    ] = None,
    batch_size: Annotated[
        Integers | None, option("Samples per training step.", 256, parser=integers, metavar="INT,…")
    ] = None,
    lr: Annotated[
        Numbers | None,
        option(
            "Learning rates; each normaliser is judged at its best.",
            "0.1,1",
            parser=numbers,
            metavar="NUMBER,…",
        ),
    ] = None,
    seeds: Annotated[int | None, option("Runs of each; intervals are over these.", 3)] = None,
    epochs: Annotated[int | None, option("Passes over the training split.", 10)] = None,
    target: Annotated[float | None, option("Validation metric that steps are counted to.", 0.85)] = None,
    jobs: Annotated[int | None, option("Runs at a time.", "one per core, or one on a GPU")] = None,
    ray: Annotated[
        str | None,
        option("A Ray cluster to train on: auto or HOST:PORT.", "none", metavar="ADDRESS"),
    ] = None,
    device: Annotated[str | None, option("auto, cpu or cuda.", "auto")] = None,
    out: Annotated[
        Path,
        option(
            "Folder of the experiment; finished runs are kept in it.",
            OUT,
            show_default=False,
            parser=folder,
            metavar="PATH",
        ),
    ] = Path(OUT),
    data_dir: Annotated[
        Path | None, option("Where data files are looked for first.", "NORMWRIGHT_DATA")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON; all else goes to the standard error.", rich_help_panel="Experiment"
        ),
    ] = False,
    depth: Annotated[int | None, of_network("depth", "Hidden layers of mlp, layers of lstm.")] = None,
    width: Annotated[int | None, of_network("width", "Units per layer; first channels of vgg.")] = None,
    activation: Annotated[str | None, of_network("activation", f"{any_of(ACTIVATIONS)}.")] = None,
    place: Annotated[
        str | None, of_network("place", f"The normaliser {any_of(PLACES)} the activation.")
    ] = None,
    initialisation: Annotated[
        str | None,
        of_network(
            "initialisation",
            f"{any_of(INITIALISATIONS)}; own leaves a network's weights be, and is the default for yours.",
        ),
    ] = None,
    init_std: Annotated[float | None, of_network("init_std", "Standard deviation of normal.")] = None,
    dropout: Annotated[float | None, of_network("dropout", "Probability.")] = None,
    groups: Annotated[int | None, of_network("groups", "The most groups of group norm.")] = None,
    ghost_size: Annotated[
        int | None, of_network("ghost_size", "Samples in a virtual batch of ghost norm.")
    ] = None,
    affine: Annotated[
        bool | None, of_network("affine", "Whether normalisers have a weight and a bias.")
    ] = None,
    image_size: Annotated[
        int | None, of_data("image_size", "Pixels that images:DIR scales height and width to.")
    ] = None,
    validation: Annotated[
        float | None, of_data("validation", "Share of the training set kept to choose the lr.")
    ] = None,
    optimiser: Annotated[str | None, of_training("optimiser", f"{any_of(OPTIMISERS)}.")] = None,
    momentum: Annotated[float | None, of_training("momentum", "Of sgd.")] = None,
    weight_decay: Annotated[float | None, of_training("weight_decay", "Of all parameters.")] = None,
    schedule: Annotated[str | None, of_training("schedule", f"{any_of(SCHEDULES)}.")] = None,
    warmup: Annotated[float | None, of_training("warmup", "Share of all steps, for cosine.")] = None,
    loss: Annotated[
        str | None, of_training("loss", "cross_entropy, mse, or your own file.py:function.")
    ] = None,
    metric: Annotated[
        str | None, of_training("metric", "accuracy, or your own file.py:function; higher is better.")
    ] = None,
    evaluations: Annotated[
        int | None, of_training("evaluations", "How often per epoch the metric is taken.")
    ] = None,
    records: Annotated[
        int | None, of_training("records", "How often in all the layers are recorded; 0 is never.")
    ] = None,
    threads: Annotated[int | None, of_training("threads", "CPU threads of one run.")] = None,
    shuffle: Annotated[bool | None, of_training("shuffle", "A new order of the samples every epoch.")] = None,
    samples: Annotated[
        int | None, of_training("samples", "How many of the training split are used; 0 is all.")
    ] = None,
    label_noise: Annotated[
        float | None, of_training("label_noise", "Share of their labels that are wrong.")
    ] = None,
    max_steps: Annotated[
        int | None, of_training("max_steps", "Training steps that end a run; 0 leaves it to the epochs.")
    ] = None,
) -> None:
    """Train one network under every normaliser, and say which wins and why, or why none does.

    Each is judged at its own best learning rate, chosen on a validation split.
    A winner is named where three seeds or more tell it from every other; for accuracy, beyond
    the luck of the test set, sample by sample, and from guessing too.
    The same command goes on where an earlier one was stopped.
    """
    asked = {_KEYWORDS.get(name, name): value for name, value in context.params.items() if value is not None}
    del asked["as_json"]
    with stops_told(lambda: f"finished runs are kept in {out}; run the same command again to go on"):
        comparison = _compare(asked, options_of(context), as_json)
    _print(comparison, out, as_json)


def _compare(asked: dict[str, Any], options: Mapping[str, str], as_json: bool) -> Comparison:
    from normwright.cli.progress import display_on
    from normwright.report.comparison import compare

    display = display_on(sys.stderr)
    with user_errors_shown(options, as_json=as_json), contextlib.closing(display):
        return compare(**asked, on_stage=display.stage, on_progress=display.runs)


def _print(comparison: Comparison, out: Path, as_json: bool) -> None:
    from rich.console import Console

    from normwright.cli.results import print_results

    if as_json:
        typer.echo(comparison.to_json())
    else:
        print_results(comparison, out, Console())
