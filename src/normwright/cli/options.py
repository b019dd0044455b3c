"""The options of `normwright compare`: their help, and the defaults that they show.

An option that is not given is not passed on, so every default is the one of `nw.compare`; what the help shows
is read from the recipes, or held against `nw.compare` by a test, since importing it takes seconds.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import typer

from normwright.lab.recipe import DataRecipe, NetworkRecipe, TrainingRecipe

OUT = "normwright-out"

EXAMPLES = """\
[bold]Examples[/bold]

A deep network of sigmoids on the digits, with and without normalisers:
  normwright compare --batch-size 32 --lr 0.3,1

Small batches against large ones, two runs at a time:
  normwright compare lenet --data fashion-mnist --batch-size 2,32,256 --jobs 2

Your own network and data: wide() in nets.py, rings() in data.py:
  normwright compare nets.py:wide --data data.py:rings --out rings

Images in a folder per class, the numbers as JSON:
  normwright compare resnet20 --data images:photos --json > photos.json
"""


def option(help_: str, default: object, *, panel: str = "Experiment", **kind: Any) -> Any:
    """An option whose help shows the default."""
    return typer.Option(help=f"{help_} [dim]({default})[/dim]", rich_help_panel=panel, **kind)


def _of(part: type, field: str, help_: str) -> Any:
    default = {known.name: known for known in dataclasses.fields(part)}[field].default
    return option(help_, default, panel=part.__name__.removesuffix("Recipe"))


of_network = partial(_of, NetworkRecipe)
of_data = partial(_of, DataRecipe)
of_training = partial(_of, TrainingRecipe)


def any_of(names: tuple[str, ...]) -> str:
    """Names to choose from, as they stand in a sentence.

    Example:
        >>> any_of(("sgd", "adamw"))
        'sgd or adamw'
    """
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
