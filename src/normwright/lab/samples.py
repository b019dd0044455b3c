"""Reads a data set of any kind: a file, a name, a data frame, an array, a Dataset, batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from normwright.errors import DataError, OptionError
from normwright.lab.batches import Batches, open_batches
from normwright.lab.data.load import READERS
from normwright.lab.data.tables import TABLES, is_frame, read_table, rows_of_frame
from normwright.lab.recipe import DataRecipe
from normwright.lab.tensor_samples import Samples, as_tensor, gathered, samples_of
from normwright.lab.user_code import IMAGES, is_user_code
from normwright.shift.columns import Array, Rows


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    Args:
        samples: the most that are used of it.
        seed: of the draw.
        label: the column of a table that holds the class; "" for none.
        split, image_size, mean, std, directory: see `open_batches`.
    """

    samples: int
    seed: int
    label: str = ""
    split: str | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    directory: Path | None = None


def read_samples(source: Any, name: str, usual_split: str, how: Reading) -> Samples:
    """The samples of a path, a name or an object.

    Args:
        source: a path to .csv, .parquet or .npy; the name of a data set; a data frame, array, tensor, (x, y)
            of these, a Dataset, or an iterable of batches.
        name: what an object is called in messages.
        usual_split: of what has splits, where none is asked for.
        how: see there.
    Raises:
        DataError: it cannot be read, or holds no samples.
        OptionError: it is of no known kind.
        Whatever a user's function raises.
    """
    if isinstance(source, str | Path):
        read = _of_name(str(source), usual_split, how)
    elif is_frame(source):
        read = _of_rows(rows_of_frame(source, name), how)
    else:
        read = _of_object(source, name, how)
    if not len(read):
        raise DataError(f"{name} must hold at least one row, but is empty")
    read = dataclasses.replace(read, rows=dataclasses.replace(read.rows, name=name))
    return read.taken(how.samples, how.seed)


def has_splits(source: Any) -> bool:
    """Whether it is named and no file: what a split is taken of, and images may be scaled in."""
    return isinstance(source, str | Path) and Path(source).suffix not in (*TABLES, ".npy")


def _of_name(name: str, usual_split: str, how: Reading) -> Samples:
    path = Path(name)
    if path.suffix in TABLES:
        return _of_rows(read_table(path), how)
    if path.suffix == ".npy":
        return _of_object(_loaded(path), name, how)
    offered = name in READERS or name.startswith(IMAGES) or is_user_code(name)
    if not offered and (path.suffix or path.exists()):
        raise DataError(
            f"{name} must end in {', '.join(TABLES)} or .npy, or name a data set; a folder of images is "
            f"{IMAGES}{name}"
        )
    recipe = (
        DataRecipe(name=name) if how.image_size is None else DataRecipe(name=name, image_size=how.image_size)
    )
    batches = open_batches(
        recipe,
        split=how.split,
        usual_split=usual_split,
        directory=how.directory,
        mean=how.mean,
        std=how.std,
    )
    # What lies in memory knows its classes, and is read whole, so that the draw is from all of it.
    return gathered(batches, name, None if batches.classes is not None else how.samples)


def _loaded(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as fault:
        raise DataError(f"{path} must be an .npy file of numbers, but is not: {fault}") from fault
    return array


def _of_object(source: Any, name: str, how: Reading) -> Samples:
    if isinstance(source, np.ndarray | Tensor):
        return samples_of(as_tensor(source, name), None, name)
    if isinstance(source, Batches):
        return gathered(source, name, how.samples)
    if _is_labelled(source):
        return samples_of(as_tensor(source[0], name), as_tensor(source[1], name), name)
    if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
        return _of_dataset(source, name, how)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | str | bytes):
        return gathered(source, name, how.samples)
    raise OptionError(
        f"{name} must be a path, the name of a data set, a data frame, an array, a tensor, (x, y), a Dataset "
        f"or batches, but is {type(source).__name__}"
    )


def _of_rows(rows: Rows, how: Reading) -> Samples:
    columns, labels = dict(rows.columns), None
    if how.label:
        if how.label not in columns:
            raise OptionError(f"label must be a column of {rows.name}, but it has no {how.label!r}")
        values = columns.pop(how.label)
        whole = values.dtype.kind == "f" and bool(
            (np.isfinite(values) & (values % 1 == 0) & (values >= 0)).all()
        )
        if not whole:
            raise DataError(
                f"the label column {how.label!r} of {rows.name} must hold class numbers from 0 on, without "
                "gaps, but does not: number the classes 0, 1, 2, …"
            )
        labels = torch.from_numpy(values.astype(np.int64))
    numbers = [values for values in columns.values() if values.dtype.kind == "f"]
    inputs = None
    if len(numbers) == len(columns) and numbers:
        with np.errstate(over="ignore"):  # beyond float32 they are infinite to a network
            inputs = torch.from_numpy(np.stack(numbers, axis=1).astype(np.float32))
    return Samples(Rows(rows.name, columns, left_out=rows.left_out), inputs, labels)


def _of_dataset(source: Any, name: str, how: Reading) -> Samples:
    count = len(source)
    order = np.random.default_rng(how.seed).permutation(count)[: how.samples]
    collate = torch.utils.data.default_collate
    samples = gathered((collate([source[int(place)]]) for place in order), name, None)
    if len(order) == count:
        return samples
    note = f"{len(order):,} of the {count:,} samples of {name} were drawn at random."
    return dataclasses.replace(samples, notes=(*samples.notes, note))


def _is_labelled(source: Any) -> bool:
    """Whether it is (x, y), which two batches in a tuple are not."""
    if not (isinstance(source, tuple) and len(source) == 2):
        return False
    x, y = source
    arrays = isinstance(x, np.ndarray | Tensor) and isinstance(y, np.ndarray | Tensor)
    return arrays and x.ndim > 1 and y.ndim == 1 and len(x) == len(y)
