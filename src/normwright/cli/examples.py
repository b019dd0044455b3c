"""An example of a network's input: random values of a given shape, or the first batch of a data set."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import DataError, OptionError


def random_example(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Normal values, always the same, in the dtype and on the device of the network."""
    if any(size < 1 for size in shape):
        raise OptionError(f"--example must have sizes of at least 1, but has {','.join(map(str, shape))}")
    held = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return values.to(device=held.device, dtype=held.dtype)


def first_example(network: nn.Module, batches: Iterable[Any]) -> Tensor | tuple[Any, ...] | dict[str, Any]:
    """The input of the first batch, as `nw.fold` takes it: without the labels.

    A tuple or list has the input first; of a mapping, what forward takes is kept, but for `labels`.
    """
    batch = next(iter(batches), None)
    if batch is None:
        raise DataError("the data must hold at least one batch, as an example, but hold none")
    device = next((held.device for held in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    if isinstance(batch, list | tuple):
        batch = batch[0]
    if isinstance(batch, Mapping):
        taken = inspect.signature(network.forward).parameters
        return {
            name: _on(device, value) for name, value in batch.items() if name in taken and name != "labels"
        }
    if isinstance(batch, list | tuple):
        return tuple(_on(device, value) for value in batch)
    if isinstance(batch, Tensor):
        return batch.to(device)
    raise DataError(
        f"a batch must be a tensor, a tuple with the input first, or a mapping, but is {type(batch).__name__}"
    )


def _on(device: torch.device, value: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
