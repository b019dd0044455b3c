"""Batches of a named data set, or those that a user's own function makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from normwright.errors import OptionError
from normwright.lab.data.load import prepared, read
from normwright.lab.data.own import as_source, call_own
from normwright.lab.recipe import DataRecipe
from normwright.lab.user_code import is_user_code

SPLITS = ("train", "validation", "test", "all")


class Batches:
    """Batches that can be gone through again and again, in one order.

    Args:
        batches: what is gone through.
        again: makes them anew, where they can be gone through once only.
        sample_shape: of one sample, where it is known without reading a batch.
        classes: how many there are, where it is known.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        again: Any = None,
        *,
        sample_shape: tuple[int, ...] | None = None,
        classes: int | None = None,
    ) -> None:
        self._batches = batches
        self._again = again
        self._used = False
        self.sample_shape = sample_shape
        self.classes = classes

    @property
    def count(self) -> int | None:
        """How many there are, where that is known."""
        if not isinstance(self._batches, Sized):
            return None
        try:
            return len(self._batches)
        except TypeError:  # a DataLoader over a stream has a length that it refuses to tell
            return None

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._batches, Iterator):
            if self._used:
                self._batches = self._again()
            self._used = True
        return iter(self._batches)


class _Slices:
    """A data set in memory, cut into (x, y) batches; the last may be smaller."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, size: int) -> None:
        self._x, self._y, self._size = x, y, size

    def __len__(self) -> int:
        return -(-len(self._y) // self._size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self._x.split(self._size), self._y.split(self._size), strict=True)


def open_batches(
    recipe: DataRecipe,
    *,
    split: str | None = None,
    usual_split: str = "train",
    batch_size: int | None = None,
    directory: Path | None = None,
) -> Batches:
    """The batches of a data set, in its own order.

    A user's function returns a data set, as for `compare`, or batches: a DataLoader, an IterableDataset, or a
    generator. Batches are handed on as they come.

    Args:
        recipe: which data set.
        split: one of `SPLITS`, or None for `usual_split`.
        batch_size: by default 64.
        directory: where to look first for the files of a published set.
    Raises:
        OptionError: an unknown split; a batch size below one; a split or a size for what comes in batches.
        Whatever loading the data raises.
    """
    if split is not None and split not in SPLITS:
        raise OptionError(f"the split must be one of {', '.join(SPLITS)}, but is {split!r}")
    if batch_size is not None and batch_size < 1:
        raise OptionError(f"the batch size must be at least 1, but is {batch_size}")
    if is_user_code(recipe.name):
        came = call_own(recipe.name)
        if isinstance(came, DataLoader | IterableDataset | Iterator):
            _check_alone(recipe.name, split, batch_size)
            return Batches(came, lambda: call_own(recipe.name))
        source = as_source(recipe.name, came)
    else:
        source = read(recipe, directory)
    data = prepared(recipe, source)
    parts = SPLITS[:3] if split == "all" else (split or usual_split,)
    x = torch.cat([getattr(data, f"{part}_x") for part in parts])
    y = torch.cat([getattr(data, f"{part}_y") for part in parts])
    return Batches(_Slices(x, y, batch_size or 64), sample_shape=data.sample_shape, classes=len(data.classes))


def _check_alone(name: str, split: str | None, batch_size: int | None) -> None:
    for option, value in (("split", split), ("batch size", batch_size)):
        if value is not None:
            raise OptionError(
                f"{name} makes batches, which are taken as they come, but a {option} came too ({value}): "
                "leave it out, or have the function return a data set"
            )
