"""Before a comparison trains anything, whatever can be known to fail fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from normwright.errors import DataError, NormwrightError, OptionError, RunError, ShapeError
from normwright.lab.data import Data
from normwright.lab.grid import Grid
from normwright.lab.misfit import misfit_of
from normwright.lab.objective import loss_named, metric_named
from normwright.lab.placement import trial
from normwright.lab.recipe import Recipe, TrainingRecipe
from normwright.lab.tracebacks import user_traceback
from normwright.lab.training import build, check_batch, reproducible, smallest_batch, used_samples

_AS_FLOAT = (
    "\nSamples are float32, whatever the data function returns: call .long() on them in the network's "
    "forward, before the embedding."
)


def check_grid(grid: Grid, data: Data) -> None:
    """Builds the network under each normaliser, and looks at what each batch size makes of the data.

    Raises:
        OptionError, UserCodeError: something does not hold.
        DataError: all samples are of one class, of which every answer is right.
        RunError: the user's network raised, or does not take the data.
    """
    if grid.base.training.metric == "accuracy":
        _check_classes(data)
    loss_named(grid.base.training.loss)
    metric_named(grid.base.training.metric)
    for norm in grid.norms:
        recipes = [grid.recipe(norm, batch_size, grid.lrs[0], 0) for batch_size in grid.batch_sizes]
        for recipe in recipes:
            check_batch(recipe, len(data.train_y))
        with naming_the_run(recipes[0]), reproducible(recipes[0].training):
            network = build(recipes[0], data).module
            if norm == "whitening":
                for recipe in recipes:
                    _check_whitening(network, recipe.training, used_samples(recipe.training, data))


def _check_classes(data: Data) -> None:
    if len(data.classes) < 2:
        raise DataError(
            f"{data.name} must have samples of two classes or more to take an accuracy of, but all of its "
            "training samples are of one: add samples of another class, or take a metric of your own"
        )


def _check_whitening(network: nn.Module, recipe: TrainingRecipe, data: Data) -> None:
    """The smallest batch whitens every place: how many values one must have, the network alone tells."""
    smallest = smallest_batch(recipe, len(data.train_y))
    try:
        trial(network, data.train_x[:smallest].clone().to(recipe.device))
    except ShapeError as error:
        raise OptionError(
            f"whitening norm cannot take the smallest batch that batch size {recipe.batch_size} makes, of "
            f"{smallest} samples: take another batch size, or leave whitening norm out ({error})"
        ) from error


@contextmanager
def naming_the_run(recipe: Recipe) -> Iterator[None]:
    """An exception of the user's own code becomes a RunError: where the data stopped in the network in a
    line, else the run and the traceback. It stays the cause."""
    try:
        yield
    except NormwrightError:
        raise
    except Exception as error:
        misfit = misfit_of(error)
        if misfit is not None and misfit.by_torch:
            told = misfit.line
            if isinstance(misfit.module, nn.Embedding | nn.EmbeddingBag):
                told += _AS_FLOAT
        else:
            told = f"{type(error).__name__}: {error} in {recipe.describe()}\n{user_traceback(error)}"
        raise RunError(f"{told}\nNothing was trained.") from error
