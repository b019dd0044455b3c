"""The arguments that the commands share which act on a network and its checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normwright.cli.lists import Integers, Numbers, integers, numbers
from normwright.errors import OptionError

if TYPE_CHECKING:
    from normwright.lab.batches import Batches

DATA_SETS = ("digits", "fashion-mnist", "mnist", "cifar10", "images:DIR")

Network = Annotated[
    str,
    typer.Argument(
        help="The function that builds the network, package.module:function or path/to/file.py:function. "
        "It is called without arguments, or, if it needs them, with (sample_shape, classes) of --data.",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        help="Its weights: safetensors, or a state dict by torch.save. Pickled code is never run.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(help="Which state dict, where the checkpoint holds several.", show_default=False),
]
Data = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(DATA_SETS)}, or your own path/to/file.py:function, which returns batches (a "
        "DataLoader, a generator, a list) or (x_train, y_train, x_test, y_test).",
        rich_help_panel="Data",
        show_default=False,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        help="train, validation, test or all. [dim](all of images:DIR; else train, for adapt test)[/dim]",
        rich_help_panel="Data",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Samples per batch. [dim](64)[/dim]", rich_help_panel="Data", show_default=False),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Pixels that images:DIR scales height and width to. [dim](32)[/dim]",
        rich_help_panel="Data",
        show_default=False,
    ),
]
Mean = Annotated[
    Numbers | None,
    typer.Option(
        help="Taken from the pixels of images:DIR, which go from 0 to 1: as in training. [dim](0)[/dim]",
        parser=numbers,
        metavar="NUMBER,…",
        rich_help_panel="Data",
        show_default=False,
    ),
]
Std = Annotated[
    Numbers | None,
    typer.Option(
        help="What they are divided by then. [dim](1)[/dim]",
        parser=numbers,
        metavar="NUMBER,…",
        rich_help_panel="Data",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where data files are looked for first. [dim](NORMWRIGHT_DATA)[/dim]",
        rich_help_panel="Data",
        show_default=False,
    ),
]
Example = Annotated[
    Integers | None,
    typer.Option(
        help="Shape of an input, whose values are drawn at random: N,C,H,W.",
        parser=integers,
        metavar="INT,…",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output file if there is one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the report as JSON; all else goes to the standard error.")
]


@dataclass(frozen=True)
class Asked:
    """What a user asked for by the arguments above, under their names; `out` is the command's own."""

    network: str
    checkpoint: Path
    key: str | None
    out: Path | None
    force: bool
    dry_run: bool
    as_json: bool
    device: str
    data: str | None
    split: str | None
    batch_size: int | None
    image_size: int | None
    mean: Numbers | None
    std: Numbers | None
    data_dir: Path | None

    @classmethod
    def of(cls, context: typer.Context) -> Asked:
        """The command's own, whatever arguments it has beside these."""
        return cls(**{field.name: context.params[field.name] for field in dataclasses.fields(cls)})

    def data_checks(self) -> tuple[Callable[[], None], ...]:
        """Each raises OptionError where an option of the data is wrong by itself, or came without data."""
        from normwright.lab.batches import check_batch_size, check_split

        return (
            self._check_has_data,
            lambda: check_split(self.split),
            lambda: check_batch_size(self.batch_size),
            self._check_image_size,
        )

    def _check_image_size(self) -> None:
        from normwright.lab.recipe import DataRecipe

        if self.image_size is not None:
            DataRecipe(name=self.data or "", image_size=self.image_size)

    def _check_has_data(self) -> None:
        for name in ("split", "batch_size", "image_size", "mean", "std", "data_dir"):
            if self.data is None and getattr(self, name) is not None:
                raise OptionError(f"--{name.replace('_', '-')} goes with --data, which did not come")

    def check_data_function(self) -> None:
        """Raises UserCodeError where the data are to come from a function that is not there."""
        from normwright.lab.user_code import is_user_code, resolve

        if self.data is not None and is_user_code(self.data):
            resolve(self.data)

    def open_data(self, usual_split: str) -> Batches | None:
        """The batches, if there are to be any.

        Raises:
            Whatever loading the data raises.
        """
        if self.data is None:
            return None
        return open_named(
            self.data,
            usual_split=usual_split,
            split=self.split,
            batch_size=self.batch_size,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            data_dir=self.data_dir,
        )


def open_named(
    data: str,
    *,
    split: str | None,
    batch_size: int | None,
    image_size: int | None,
    mean: Numbers | None,
    std: Numbers | None,
    data_dir: Path | None,
    usual_split: str = "train",
    shuffle_seed: int | None = None,
) -> Batches:
    """The batches that the options of these names ask for.

    Raises:
        Whatever loading the data raises.
    """
    from normwright.lab.batches import open_batches
    from normwright.lab.recipe import DataRecipe

    recipe = DataRecipe(name=data)
    if image_size is not None:
        recipe = dataclasses.replace(recipe, image_size=image_size)
    return open_batches(
        recipe,
        split=split,
        usual_split=usual_split,
        batch_size=batch_size,
        directory=data_dir,
        mean=mean,
        std=std,
        shuffle_seed=shuffle_seed,
    )
