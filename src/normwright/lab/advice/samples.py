"""Samples in memory, of which mini-batches of any size are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.data import DataLoader, Dataset, IterableDataset

from normwright.errors import DataError, OptionError
from normwright.lab.data.dataset import Data
from normwright.lab.data.load import prepared, read
from normwright.lab.data.own import as_source, call_own
from normwright.lab.recipe import DataRecipe
from normwright.lab.user_code import is_user_code

# Of what comes in batches no more is read: a stream may have no end.
MOST_READ = 65_536

_READ_AT_ONCE = 256


class Samples:
    """Samples that lie in memory, as one batch of all of them.

    Args:
        batch: (x, labels), or a mapping with `labels`; every tensor has the samples on its first axis.
        classes: their names, where they are known.
    Raises:
        DataError: there are no labels, no samples, or not as many of the one as of the other.
    """

    def __init__(self, batch: Any, classes: tuple[str, ...] | None = None) -> None:
        self._leaves, self._structure = tree_flatten(batch)
        self.count = _count(self._leaves)
        self.labels = labels_of(batch)
        x = batch[0] if isinstance(batch, tuple) else None
        self.sample_shape = tuple(x.shape[1:]) if isinstance(x, Tensor) else None
        self.classes = classes or _numbered(self.labels)

    def take(self, chosen: Tensor | slice, device: torch.device) -> Any:
        """The batch of the chosen samples, on the device: a copy, which a network may change in place."""
        if isinstance(chosen, slice):  # of which indexing would give a view
            chosen = torch.arange(*chosen.indices(self.count), device="cpu")
        leaves = [leaf[chosen].to(device) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        return tree_unflatten(leaves, self._structure)

    def parts(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Indices of whole mini-batches in a random order, in a new one when all samples were taken."""
        while True:
            order = torch.randperm(self.count, generator=generator, device="cpu")
            yield from (part for part in order.split(size) if len(part) == size)


def labels_of(batch: Any) -> Any:
    """The labels of a batch.

    Raises:
        DataError: it has none.
    Example:
        >>> labels_of((torch.zeros(2, 3), torch.tensor([0, 1])))
        tensor([0, 1])
    """
    if isinstance(batch, Mapping) and "labels" in batch:
        return batch["labels"]
    if isinstance(batch, list | tuple) and len(batch) > 1:
        return batch[1]
    raise DataError(
        "a training step needs labels, so a batch must be (x, labels) or a mapping with 'labels', but "
        f"{in_words(batch)} came"
    )


def in_words(batch: Any) -> str:
    """A batch as an error names it.

    Example:
        >>> in_words((torch.zeros(2, 3), torch.zeros(2)))
        '(2, 3) and (2,)'
    """
    if isinstance(batch, Tensor):
        return f"a tensor {tuple(batch.shape)} alone"
    if isinstance(batch, Mapping):
        return ", ".join(f"{name} {tuple(getattr(value, 'shape', ()))}" for name, value in batch.items())
    shapes = [str(tuple(leaf.shape)) for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]
    return " and ".join(shapes) or type(batch).__name__


def read_samples(data: Any, *, image_size: int | None = None, directory: Path | None = None) -> Samples:
    """The samples of a data set: by its name, or as it lies in memory.

    Args:
        data: a name as `compare` takes it (of which the training split is meant), a normwright `Data`, the
            two tensors or arrays (x, labels), four of them (x_train, y_train, x_test, y_test), of which the
            training split is meant too, a data set of PyTorch, or batches as a data loader gives them.
        image_size: pixels that images:DIR scales to.
        directory: where data files are looked for first.
    Raises:
        DataError: it holds no samples or no labels.
        OptionError: it is none of these.
        Whatever loading a named data set raises.
    """
    if isinstance(data, str):
        recipe = DataRecipe(name=data)
        if image_size is not None:
            recipe = replace(recipe, image_size=image_size)
        came = call_own(data) if is_user_code(data) else None
        if isinstance(came, DataLoader | IterableDataset | Iterator | Dataset):
            return read_samples(came)
        source = read(recipe, directory) if came is None else as_source(data, came)
        return read_samples(prepared(recipe, source))
    if isinstance(data, Data):
        return Samples((data.train_x, data.train_y), data.classes)
    if isinstance(data, tuple) and data and all(isinstance(part, Tensor | np.ndarray) for part in data):
        if len(data) == 2:
            return Samples(tuple(map(_as_tensor, data)))
        if len(data) == 4:
            return read_samples(prepared(DataRecipe(name="data"), as_source("data", data)))
        raise _refused(f"a tuple of {len(data)}")
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        data = DataLoader(data, _READ_AT_ONCE)
    if isinstance(data, Tensor | np.ndarray | Mapping) or not hasattr(data, "__iter__"):
        raise _refused(f"a {type(data).__name__}")
    return Samples(_joined(data))


def _refused(came: str) -> OptionError:
    return OptionError(
        "data must be a name, two tensors (x, labels), four (x_train, y_train, x_test, y_test), a data set, "
        f"or an iterable of batches, but came as {came}"
    )


def _joined(batches: Iterable[Any]) -> Any:
    """The batches as one."""
    rows: list[list[Any]] = []
    structure, seen = None, 0
    for batch in batches:
        labels_of(batch)
        plain = dict(batch) if isinstance(batch, Mapping) else tuple(batch)
        leaves, structure = tree_flatten(tree_map(_as_tensor, plain))
        if rows and len(leaves) != len(rows[0]):
            raise DataError(
                f"every batch must hold the same tensors, but the first held {len(rows[0])} and batch "
                f"{len(rows)} {len(leaves)}"
            )
        rows.append(leaves)
        seen += _count(leaves)
        if seen >= MOST_READ:
            break
    if structure is None:
        raise DataError(
            "the data must hold at least one batch, but none came: a loader is empty, or an iterator was "
            "used up"
        )
    columns = zip(*rows, strict=True)
    return tree_unflatten(
        [torch.cat(column) if isinstance(column[0], Tensor) else column[0] for column in columns], structure
    )


def _as_tensor(value: Any) -> Any:
    """An array as a tensor; all else as it is, where `torch.as_tensor` would move a tensor."""
    return torch.as_tensor(value, device="cpu") if isinstance(value, np.ndarray) else value


def _count(leaves: list[Any]) -> int:
    lengths = {len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()}
    if lengths in (set(), {0}):
        raise DataError("the data must hold at least one sample, but hold none")
    if len(lengths) > 1:
        shown = " and ".join(map(str, sorted(lengths)))
        raise DataError(f"there must be as many labels as samples, but their numbers are {shown}")
    return lengths.pop()


def _numbered(labels: Any) -> tuple[str, ...]:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() != 1:
        return ()
    return tuple(map(str, range(int(labels.max()) + 1)))
