"""Samples: rows to compare, inputs for a network and labels, from tensors and batches of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from normwright.errors import DataError, OptionError
from normwright.network.counting import how_many
from normwright.shift.columns import Array, Rows
from normwright.shift.give_away import element_names

LABEL = "label"

# Of an image's side: beyond, neighbours say the same, and the columns are too many to be learned from.
_SIDE = 32


@dataclass(frozen=True, eq=False)
class Samples:
    """One data set.

    Args:
        rows: its columns.
        inputs: what a network is called with: a tensor, or a tuple or mapping of tensors, one row a sample;
            None where the columns are not numbers.
        labels: (N,), int64, or None.
        notes: what the user should know of how it was read.
        classes: how many there are, of which the rows may lack some; None for as many as the labels say.
    """

    rows: Rows
    inputs: Any
    labels: Tensor | None
    notes: tuple[str, ...] = ()
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.classes is None and self.labels is not None and len(self.labels):
            object.__setattr__(self, "classes", int(self.labels.max()) + 1)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """Of what a network is given, where that is one tensor."""
        return tuple(self.inputs.shape[1:]) if isinstance(self.inputs, Tensor) else None

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
            self.classes,
        )

    def ordered_as(self, other: Samples) -> Samples:
        """The same, with the columns of a table in the other's order, in what a network is given, too.

        Raises:
            DataError: these are images of other sizes.
        """
        if self.rows.shape and self.sample_shape != other.sample_shape:
            raise DataError(
                f"both sets must have samples of one shape, but {other.rows.name} has {other.sample_shape} "
                f"and {self.rows.name} {self.sample_shape}"
            )
        names, wanted = list(self.rows.columns), list(other.rows.columns)
        if names == wanted or set(names) != set(wanted):
            return self
        columns = {name: self.rows.columns[name] for name in wanted}
        inputs = self.inputs
        if isinstance(inputs, Tensor) and inputs.dim() == 2 and inputs.shape[1] == len(names):
            inputs = inputs[:, [names.index(name) for name in wanted]]
        return dataclasses.replace(self, rows=dataclasses.replace(self.rows, columns=columns), inputs=inputs)

    def with_labels(self) -> Samples:
        """The same, with the label as one more column, a category."""
        if self.labels is None:
            raise OptionError(f"{self.rows.name} must have labels to compare, but has none")
        if LABEL in self.rows.columns:
            raise DataError(
                f"{self.rows.name} must have no other column called {LABEL!r} where the labels are compared "
                "as one: rename it"
            )
        column = np.array([str(label) for label in self.labels.tolist()], dtype=object)
        rows = dataclasses.replace(self.rows, columns={**self.rows.columns, LABEL: column})
        return dataclasses.replace(self, rows=rows)


def mapped(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The inputs with every tensor put through the function."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {key: mapped(value, function) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(mapped(value, function) for value in inputs)
    return inputs


def samples_of(inputs: Any, labels: Tensor | None, name: str) -> Samples:
    """The samples of a tensor, or of a mapping or tuple of them.

    Args:
        inputs: one row a sample; each element becomes a column.
        labels: taken for such where they are whole numbers, one a sample.
        name: of the set.
    Raises:
        DataError: a tensor is complex, or has no rows.
    """
    notes: tuple[str, ...] = ()
    if isinstance(inputs, Tensor):
        compared = _reduced(inputs)
        if compared is not inputs:
            height, width = compared.shape[2:]
            notes = (
                f"images of {name} are compared at {height} × {width} pixels, each the mean of a block.",
            )
        columns, shape = _columns(compared, "x", name), tuple(compared.shape[1:])
        rows = Rows(name, columns, shape if len(shape) > 1 else ())
    else:
        parts = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
        columns = {}
        for key, tensor in parts:
            columns |= _columns(tensor, str(key), name)
        rows = Rows(name, columns)
    if labels is not None and (labels.dim() != 1 or labels.is_floating_point() or len(labels) != len(rows)):
        labels = None
    return Samples(rows, inputs, None if labels is None else labels.to(torch.int64), notes)


def _reduced(images: Tensor) -> Tensor:
    """Large images at `_SIDE` pixels a side at most; all else as it is."""
    if images.dim() != 4 or max(images.shape[2:]) <= _SIDE or images.is_complex() or not images.numel():
        return images
    height, width = (min(side, _SIDE) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.to(torch.float32), (height, width))


def _columns(tensor: Tensor, prefix: str, name: str) -> dict[str, Array]:
    if tensor.dim() < 1 or tensor.is_complex():
        raise DataError(
            f"samples of {name} must be real numbers, one row each, but a tensor {tuple(tensor.shape)} of "
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


def gathered(batches: Iterable[Any], name: str, most: int | None) -> Samples:
    """All batches below each other, or as many as are needed."""
    pieces: list[Any] = []
    labels: list[Tensor | None] = []
    count = 0
    notes: tuple[str, ...] = ()
    for batch in batches:
        if most is not None and count >= most:
            notes = (f"only the first {how_many(count, 'sample')} of {name} were read.",)
            break
        inputs, truth = _split(batch, name)
        pieces.append(mapped(inputs, lambda tensor: tensor.detach().cpu()))
        labels.append(None if truth is None else truth.detach().cpu())
        count += len(_first(inputs))
    if not pieces:
        raise DataError(f"{name} must hold at least one sample, but gave no batch")
    truth = (
        None
        if any(part is None for part in labels)
        else torch.cat([part for part in labels if part is not None])
    )
    found = samples_of(_joined(pieces, name), truth, name)
    return dataclasses.replace(found, notes=(*found.notes, *notes))


def _split(batch: Any, name: str) -> tuple[Any, Tensor | None]:
    """The inputs of a batch, and its labels."""
    if isinstance(batch, Tensor | np.ndarray):
        return as_tensor(batch, name), None
    if isinstance(batch, Mapping):
        inputs = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
        labels = inputs.pop("labels", None)
        if inputs:
            return inputs, labels
    if isinstance(batch, tuple | list) and batch:
        first, rest = batch[0], batch[1:]
        labels = rest[0] if rest and isinstance(rest[0], Tensor) else None
        if isinstance(first, Tensor | np.ndarray):
            return as_tensor(first, name), labels
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


def as_tensor(array: Any, name: str) -> Tensor:
    """A tensor or NumPy array as a tensor on the CPU.

    Raises:
        DataError: it holds no numbers, or is sparse or quantized.
    """
    if isinstance(array, Tensor):
        if array.layout != torch.strided or array.is_quantized:
            what, call = ("quantized", "dequantize") if array.is_quantized else (array.layout, "to_dense")
            raise DataError(f"{name} must be a dense tensor of numbers, but is {what}: give .{call}()")
        return array.detach().cpu()
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as fault:
        raise DataError(f"{name} must hold numbers, but is of dtype {array.dtype}") from fault
