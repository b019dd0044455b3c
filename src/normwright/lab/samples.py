"""A data set of any kind as rows to compare, inputs for a network, and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
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
from normwright.lab.user_code import IMAGES, is_user_code
from normwright.shift.columns import Array, Rows
from normwright.shift.give_away import element_names

LABEL = "label"


@dataclass(frozen=True, eq=False)
class Samples:
    """One data set.

    Args:
        rows: its columns.
        inputs: what a network is called with: a tensor, or a tuple or mapping of tensors, one row a sample;
            None where the columns are not numbers.
        labels: (N,), int64, or None.
        notes: what the user should know of how it was read.
    """

    rows: Rows
    inputs: Any
    labels: Tensor | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """Of what a network is given, where that is one tensor."""
        return tuple(self.inputs.shape[1:]) if isinstance(self.inputs, Tensor) else None

    @property
    def classes(self) -> int | None:
        """As many as the labels say."""
        return None if self.labels is None else int(self.labels.max()) + 1

    def taken(self, count: int, seed: int) -> Samples:
        """At most so many of the samples, drawn at random, in the order in which they came."""
        order = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        places = torch.from_numpy(order)
        notes = self.notes
        if len(order) < len(self):
            notes += (f"{len(order):,} of the {len(self):,} rows of {self.rows.name} were drawn at random.",)
        return Samples(
            self.rows.taken(order),
            mapped(self.inputs, lambda tensor: tensor[places]),
            None if self.labels is None else self.labels[places],
            notes,
        )

    def with_labels(self) -> Samples:
        """The same, with the label as one more column, a category."""
        if self.labels is None:
            raise OptionError(f"{self.rows.name} must have labels to compare, but has none")
        column = np.array([str(label) for label in self.labels.tolist()], dtype=object)
        rows = dataclasses.replace(self.rows, columns={**self.rows.columns, LABEL: column})
        return dataclasses.replace(self, rows=rows)


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


def mapped(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The inputs with every tensor put through the function."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: mapped(value, function) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(mapped(value, function) for value in inputs)
    return inputs


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
    return _gathered(batches, name, None if batches.classes is not None else how.samples)


def _loaded(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as fault:
        raise DataError(f"{path} must be an .npy file of numbers, but is not: {fault}") from fault
    return array


def _of_object(source: Any, name: str, how: Reading) -> Samples:
    if isinstance(source, np.ndarray | Tensor):
        return _of_inputs(_tensor(source, name), None, name)
    if isinstance(source, Batches):
        return _gathered(source, name, how.samples)
    if _is_labelled(source):
        return _of_inputs(_tensor(source[0], name), _tensor(source[1], name), name)
    if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
        return _of_dataset(source, name, how)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | str | bytes):
        return _gathered(source, name, how.samples)
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
        whole = values.dtype != object and bool(
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
        inputs = torch.from_numpy(np.stack(numbers, axis=1).astype(np.float32))
    return Samples(Rows(rows.name, columns, left_out=rows.left_out), inputs, labels)


def _of_inputs(inputs: Any, labels: Tensor | None, name: str) -> Samples:
    if isinstance(inputs, Tensor):
        columns, shape = _columns(inputs, "x"), tuple(inputs.shape[1:])
        rows = Rows(name, columns, shape if len(shape) > 1 else ())
    else:
        parts = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
        columns = {}
        for key, tensor in parts:
            columns |= _columns(tensor, str(key))
        rows = Rows(name, columns)
    if labels is not None and (labels.dim() != 1 or labels.is_floating_point() or len(labels) != len(rows)):
        labels = None
    return Samples(rows, inputs, None if labels is None else labels.to(torch.int64))


def _columns(tensor: Tensor, prefix: str) -> dict[str, Array]:
    if tensor.dim() < 1 or tensor.is_complex():
        raise DataError(
            f"samples must be real numbers, one row each, but a tensor {tuple(tensor.shape)} of "
            f"{tensor.dtype} came"
        )
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    array = (
        tensor.reshape(len(tensor), -1).numpy() if tensor.numel() else tensor.numpy().reshape(len(tensor), 0)
    )
    shape = tuple(tensor.shape[1:])
    names = element_names(shape) if shape else [""]
    rows_first = np.ascontiguousarray(array.T)
    # Where the elements are an image's, their names are places; else they are those of a vector.
    lead = "" if prefix == "x" and len(shape) > 1 else prefix
    return {f"{lead}{name}": values for name, values in zip(names, rows_first, strict=False)}


def _of_dataset(source: Any, name: str, how: Reading) -> Samples:
    count = len(source)
    order = np.random.default_rng(how.seed).permutation(count)[: how.samples]
    collate = torch.utils.data.default_collate
    samples = _gathered((collate([source[int(place)]]) for place in order), name, None)
    if len(order) == count:
        return samples
    note = f"{len(order):,} of the {count:,} samples of {name} were drawn at random."
    return Samples(samples.rows, samples.inputs, samples.labels, (*samples.notes, note))


def _gathered(batches: Iterable[Any], name: str, most: int | None) -> Samples:
    """All batches below each other, or as many as are needed."""
    pieces: list[Any] = []
    labels: list[Tensor | None] = []
    count = 0
    notes: tuple[str, ...] = ()
    for batch in batches:
        if most is not None and count >= most:
            notes = (f"only the first {count:,} samples of {name} were read.",)
            break
        inputs, truth = _split(batch, name)
        pieces.append(mapped(inputs, lambda tensor: tensor.detach().cpu()))
        labels.append(truth)
        count += len(_first(inputs))
    if not pieces:
        raise DataError(f"{name} must hold at least one sample, but gave no batch")
    truth = (
        None
        if any(part is None for part in labels)
        else torch.cat([part for part in labels if part is not None])
    )
    found = _of_inputs(_joined(pieces, name), truth, name)
    return Samples(found.rows, found.inputs, found.labels, notes)


def _split(batch: Any, name: str) -> tuple[Any, Tensor | None]:
    """The inputs of a batch, and its labels."""
    if isinstance(batch, Tensor | np.ndarray):
        return _tensor(batch, name), None
    if isinstance(batch, Mapping):
        inputs = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
        labels = inputs.pop("labels", None)
        if inputs:
            return inputs, labels
    if isinstance(batch, tuple | list) and batch:
        first, rest = batch[0], batch[1:]
        labels = rest[0] if rest and isinstance(rest[0], Tensor) else None
        if isinstance(first, Tensor | np.ndarray):
            return _tensor(first, name), labels
        if isinstance(first, Mapping | tuple | list):
            return _split_inputs(first, name), labels
    raise OptionError(
        f"a batch of {name} must be a tensor, a tuple with the inputs first, or a mapping of tensors, but "
        f"{type(batch).__name__} came"
    )


def _split_inputs(first: Any, name: str) -> Any:
    values = list(first.values()) if isinstance(first, Mapping) else list(first)
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise OptionError(
            f"the inputs of a batch of {name} must be tensors, but a {type(first).__name__} came"
        )
    return dict(first) if isinstance(first, Mapping) else tuple(first)


def _joined(pieces: list[Any], name: str) -> Any:
    first = pieces[0]
    try:
        if isinstance(first, Tensor):
            return torch.cat(pieces)
        if isinstance(first, Mapping):
            return {key: torch.cat([piece[key] for piece in pieces]) for key in first}
        return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))
    except (RuntimeError, KeyError, TypeError, ValueError) as fault:
        raise DataError(
            f"all samples of {name} must have one shape, but batches cannot be joined ({fault}): bring them "
            "to one size"
        ) from fault


def _first(inputs: Any) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs
    found: Tensor = next(iter(inputs.values() if isinstance(inputs, Mapping) else inputs))
    return found


def _is_labelled(source: Any) -> bool:
    """Whether it is (x, y), which two batches in a tuple are not."""
    if not (isinstance(source, tuple) and len(source) == 2):
        return False
    x, y = source
    arrays = isinstance(x, np.ndarray | Tensor) and isinstance(y, np.ndarray | Tensor)
    return arrays and x.ndim > 1 and y.ndim == 1 and len(x) == len(y)


def _tensor(array: Any, name: str) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().cpu()
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as fault:
        raise DataError(f"{name} must hold numbers, but is of dtype {array.dtype}") from fault
