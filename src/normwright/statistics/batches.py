"""How a batch of a loader becomes a call of a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import DataError, OptionError
from normwright.network.calling import moved

ForwardFn = Callable[[nn.Module, Any], object]


class Caller:
    """Calls a network on a batch as data loaders give it.

    A tensor is the input. Of a tuple or list, as of (input, target), the first is the input and the rest is
    left aside; the first may itself be a tuple of positional arguments or a mapping. A mapping holds keyword
    arguments; those that the network's forward does not take (labels) are left out. Tensors go to the
    network's device.

    Args:
        network: what is called.
        forward_fn: called as forward_fn(network, batch) in its place, with the batch as the loader gave it.
    """

    def __init__(self, network: nn.Module, forward_fn: ForwardFn | None = None) -> None:
        self._network = network
        self._forward_fn = forward_fn
        self._signature = _signature(network)

    def __call__(self, batch: Any) -> object:
        """What the network answers."""
        if self._forward_fn is not None:
            return self._forward_fn(self._network, batch)
        args, kwargs = self._arguments(batch)
        if self._signature is not None:
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise self._not_taken(batch, str(error)) from error
            if not (args or kwargs) and self._signature.parameters:
                raise self._not_taken(batch, "none of it has the name of an argument")
        return self._network(*moved(args, self._network), **moved(kwargs, self._network))

    def _not_taken(self, batch: Any, why: str) -> OptionError:
        return OptionError(
            f"a batch must hold what {type(self._network).__name__}.forward{self._signature} takes, but "
            f"{_in_words(batch)} came ({why}): have the loader give that, or call the network by forward_fn="
        )

    def _arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if isinstance(batch, list | tuple) and len(batch):
            batch = batch[0]
            if isinstance(batch, list | tuple):
                return tuple(batch), {}
        if isinstance(batch, Mapping):
            return (), {key: value for key, value in batch.items() if self._takes(key)}
        if isinstance(batch, Tensor):
            return (batch,), {}
        raise OptionError(
            "a batch must be a tensor, a tuple or list with the input first, or a mapping of keyword "
            f"arguments, but {_in_words(batch)} came: have the loader give that, or call the network by "
            "forward_fn="
        )

    def _takes(self, key: str) -> bool:
        if self._signature is None:
            return True
        parameters = self._signature.parameters.values()
        return key in self._signature.parameters or any(p.kind is p.VAR_KEYWORD for p in parameters)


def samples_in(batch: Any) -> int:
    """How many samples a batch holds: the length of the first tensor in it that has one, else 1.

    Example:
        >>> samples_in((torch.zeros(4, 3), torch.zeros(4)))
        4
    """
    first = _first_tensor(batch)
    return 1 if first is None else len(first)


def check_iterable(batches: object) -> None:
    """Batches can be read one after the other; a tensor would be read sample by sample."""
    if isinstance(batches, Tensor) or not hasattr(batches, "__iter__"):
        raise OptionError(
            f"batches must be an iterable of batches, as a DataLoader is, but {_in_words(batches)} came: "
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
    return OptionError(
        f"the network must call its normalisers in Python on the way through forward, but none of {some} was "
        "called: do not script it, and let forward_fn= call the whole network"
    )


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value if value.dim() else None
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((tensor for item in value if (tensor := _first_tensor(item)) is not None), None)
    return None


def _signature(network: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(network.forward)
    except (TypeError, ValueError):
        return None


def _in_words(batch: object) -> str:
    if isinstance(batch, Tensor):
        return f"a tensor {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"a mapping with {', '.join(map(repr, batch))}"
    if isinstance(batch, list | tuple):
        return (
            f"a {type(batch).__name__} of {len(batch)}, ({', '.join(type(item).__name__ for item in batch)})"
        )
    return type(batch).__name__


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside a wrapper that spreads it over devices or compiles it.

    The wrappers hold the same modules; under them each forward would meet the other ranks, or skip Python.
    """
    if not isinstance(network, nn.Module):
        raise OptionError(f"a network must be a torch.nn.Module, but is {type(network).__name__}")
    while isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        network = network.module
    original = getattr(network, "_orig_mod", None)
    return unwrapped(original) if isinstance(original, torch.nn.Module) else network
