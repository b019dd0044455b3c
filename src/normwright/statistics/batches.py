"""What batches of a loader must be, and the network that they go through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from normwright.errors import DataError, OptionError
from normwright.network.batch_call import in_words
from normwright.network.walk import check_network


def samples_in(batch: Any) -> int:
    """How many samples a batch holds: the length of the first tensor in it that has one, else 1.

    Example:
        >>> samples_in((torch.zeros(4, 3), torch.zeros(4)))
        4
    """
    first = _first_tensor(batch)
    return 1 if first is None else first.shape[0]


def check_iterable(batches: object) -> None:
    """Batches can be read one after the other; a tensor would be read sample by sample."""
    if isinstance(batches, Tensor) or not hasattr(batches, "__iter__"):
        raise OptionError(
            f"batches must be an iterable of batches, as a DataLoader is, but {in_words(batches)} came: "
            "put a single batch into a list"
        )


def nothing_read(asked: str) -> DataError:
    """The error for batches that hold nothing."""
    return DataError(
        f"batches must hold at least one sample to {asked} from, but none came: a loader is empty, an "
        "iterator was used up, or drop_last=True dropped the only batch"
    )


def none_called(names: Iterable[str]) -> OptionError:
    """The error for a network whose normalisers, of these names, were not met on the way."""
    some = ", ".join(map(repr, list(names)[:8]))
    which = f"none of {some}" if some else "none"
    return OptionError(
        f"the network must call its normalisers in Python on the way through forward, but {which} was "
        "called: do not script it, let forward_fn= call the whole network, and have a class that normalises "
        "by arithmetic of its own call torch.nn.functional.batch_norm"
    )


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value if value.dim() else None
    if isinstance(value, PackedSequence):
        return value.data[: int(value.batch_sizes[0])]  # the first step of each
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((tensor for item in value if (tensor := _first_tensor(item)) is not None), None)
    return None


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside a wrapper that spreads it over devices or compiles it.

    The wrappers hold the same modules; under them each forward would meet the other ranks, or skip Python.
    """
    check_network(network)
    while isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        network = network.module
    original = getattr(network, "_orig_mod", None)
    return unwrapped(original) if isinstance(original, torch.nn.Module) else network
