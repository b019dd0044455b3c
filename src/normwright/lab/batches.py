"""Batches of a named data set, or those that a user's own function makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from normwright.errors import OptionError
from normwright.lab.data.dataset import Data, Raw
from normwright.lab.data.load import prepared, read
from normwright.lab.data.own import as_source, call_own
from normwright.lab.recipe import DataRecipe
from normwright.lab.user_code import IMAGES, is_user_code

SPLITS = ("train", "validation", "test", "all")

_USUAL_SIZE = 64


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

    @property
    def loader(self) -> Iterable[Any]:
        """What is gone through: a loader that tells its batch size and its data set, where there is one."""
        return self._batches

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._batches, Iterator):
            if self._used:
                self._batches = self._again()
            self._used = True
        return iter(self._batches)


class _Slices:
    """A data set in memory, cut into (x, y) batches; the last may be smaller.

    It tells of itself under the names that a DataLoader uses.
    """

    drop_last = False

    def __init__(self, x: torch.Tensor, y: torch.Tensor, size: int, seed: int | None) -> None:
        self.dataset = y
        self.batch_size = size
        self._x = x
        self._order = None if seed is None else torch.randperm(len(y), generator=_generator(seed))

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        x, y, size = self._x, self.dataset, self.batch_size
        if self._order is None:
            return zip(x.split(size), y.split(size), strict=True)
        return ((x[places], y[places]) for places in self._order.split(size))


def open_batches(
    recipe: DataRecipe,
    *,
    split: str | None = None,
    usual_split: str = "train",
    batch_size: int | None = None,
    directory: Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    shuffle_seed: int | None = None,
) -> Batches:
    """The batches of a data set, in its own order or shuffled.

    A user's function returns batches (a DataLoader, an IterableDataset, a generator, a list), a Dataset, or
    train and test as for `compare`. Batches and values are handed on as they come. A folder of images gives
    pixels from 0 to 1, less `mean` and over `std` where these are given: never standardised by the folder's
    own moments, which would hide what sets its images apart. A published set is standardised as `compare`
    trains on it.

    Args:
        recipe: which data set.
        split: one of `SPLITS`, or None for `usual_split`; a folder's is all. Only a published set has a
            validation split, which is no part of its train.
        batch_size: by default 64.
        directory: where to look first for the files of a published set.
        mean, std: of a folder's images, one number for each channel or one for all, in pixels from 0 to 1.
        shuffle_seed: of the order in which samples come, as in training; None for the set's own, in which a
            folder's images are sorted by class. What comes in batches keeps its order.
    Raises:
        OptionError: an unknown split; a batch size below one; a split or a size for what comes in batches;
            mean or std alone, of other lengths or of anything but a folder's images.
        Whatever loading the data raises.
    """
    check_split(split)
    check_batch_size(batch_size)
    size = batch_size or _USUAL_SIZE
    folder = recipe.name.startswith(IMAGES)
    if (mean is None) != (std is None) or (mean is not None and not folder):
        raise OptionError(
            f"mean= and std= must come together, and for images:DIR alone, but "
            f"{' and '.join(name for name, value in (('mean=', mean), ('std=', std)) if value)} came for "
            f"{recipe.name}: other data come as they are"
        )
    if is_user_code(recipe.name):
        came = call_own(recipe.name)
        if isinstance(came, DataLoader | IterableDataset | Iterator):
            _check_alone(recipe.name, split, batch_size)
            return Batches(came, lambda: call_own(recipe.name))
        if isinstance(came, Dataset):
            _check_alone(recipe.name, split, None)
            return Batches(_loader(came, size, shuffle_seed))
        if isinstance(came, list) and _holds_batches(came):
            _check_alone(recipe.name, split, batch_size)
            return Batches(came)
        source = as_source(recipe.name, came, or_else="batches (a DataLoader, a generator, a list), or ")
    else:
        source = read(recipe, directory)
    chosen = split or ("all" if folder else usual_split)
    if isinstance(source, Raw) and (folder or is_user_code(recipe.name)):
        x, y = _joined(source, chosen, ("train", "test"))
    else:
        source = prepared(recipe, source)
        x, y = _joined(source, chosen, ("train", "validation", "test"))
    if folder:
        assert isinstance(source, Raw)
        x = _scaled(x.to(torch.float32) / source.top, mean or (0.0,), std or (1.0,))
    classes = len(source.classes)
    return Batches(_Slices(x, y, size, shuffle_seed), sample_shape=tuple(x.shape[1:]), classes=classes)


def check_split(split: str | None) -> None:
    """Raises OptionError where there is no such split."""
    if split is not None and split not in SPLITS:
        raise OptionError(f"the split must be one of {', '.join(SPLITS)}, but is {split!r}")


def check_batch_size(batch_size: int | None) -> None:
    """Raises OptionError where a batch would hold nothing."""
    if batch_size is not None and batch_size < 1:
        raise OptionError(f"the batch size must be at least 1, but is {batch_size}")


def _loader(data: Dataset[Any], size: int, seed: int | None) -> DataLoader[Any]:
    if seed is None:
        return DataLoader(data, size)
    return DataLoader(data, size, shuffle=True, generator=_generator(seed))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _joined(source: Raw | Data, split: str, parts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of a split, or of all the parts that the source is cut into."""
    chosen = parts if split == "all" else (split,)
    if not set(chosen) <= set(parts):
        raise OptionError(f"{source.name} has no {split} split: take {', '.join(parts)} or all")
    x, y = (torch.cat([getattr(source, f"{part}_{of}") for part in chosen]) for of in "xy")
    return x, y


def _scaled(x: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    channels = x.shape[1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
            raise OptionError(
                f"{name}= must be one finite number, or one for each of {channels} channels, but is {values}"
            )
    if min(std) <= 0:
        raise OptionError(f"std= must be above 0, but is {std}")
    shift, scale = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return (x - shift) / scale


def _holds_batches(came: list[Any]) -> bool:
    """Whether a list is one of batches, and not [x_train, y_train, x_test, y_test] or [train, test]."""
    tensors = [item for item in came if isinstance(item, Tensor)]
    if len(tensors) == len(came) == 4 and all(
        labels.shape == x.shape[:1] for x, labels in (tensors[:2], tensors[2:])
    ):
        return False
    return all(map(_is_batch, came))


def _is_batch(item: Any) -> bool:
    """A tensor, a mapping, or a tuple or list that begins with one: unlike a data set, a list of pairs."""
    if isinstance(item, list | tuple):
        return bool(item) and isinstance(item[0], Tensor | Mapping)
    return isinstance(item, Tensor | Mapping)


def _check_alone(name: str, split: str | None, batch_size: int | None) -> None:
    for option, value in (("split", split), ("batch size", batch_size)):
        if value is not None:
            raise OptionError(
                f"{name} makes batches, which are taken as they come, but a {option} came too ({value}): "
                "leave it out, or have the function return a data set"
            )
