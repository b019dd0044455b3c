"""How a batch of a loader becomes a call of a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from normwright.errors import OptionError
from normwright.network.calling import mapped, moved

ForwardFn = Callable[[nn.Module, Any], object]


class Caller:
    """Calls a network on a batch as data loaders give it.

    A tensor is the input, and so are packed sequences. Of a tuple or list, as of (input, target), the first
    is the input and the rest is left aside; it may itself be a tuple of positional arguments or a mapping.
    A mapping holds keyword arguments; those that the network's forward does not take (labels) are left out.
    Tensors go to the network's device.

    The network is given clones of the tensors, into which it may write: a batch is often read once more.

    Args:
        network: what is called.
        forward_fn: called as forward_fn(network, batch) in its place, with the batch in the loader's form.
    """

    def __init__(self, network: nn.Module, forward_fn: ForwardFn | None = None) -> None:
        self._network = network
        self._forward_fn = forward_fn
        self._signature = _signature(network)

    def __call__(self, batch: Any) -> object:
        """What the network answers."""
        return self.on_itself(mapped(batch, torch.clone))

    def on_itself(self, batch: Any) -> object:
        """The same without clones, where their memory or time would count."""
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
        args, kwargs = moved((args, kwargs), self._network)
        return self._network(*args, **kwargs)

    def _not_taken(self, batch: Any, why: str) -> OptionError:
        return OptionError(
            f"a batch must hold what {type(self._network).__name__}.forward{self._signature} takes, but "
            f"{in_words(batch)} came ({why}): have the loader give that, or call the network by forward_fn="
        )

    def _arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if _is_sequence(batch) and len(batch):
            batch = batch[0]
            if _is_sequence(batch):
                return tuple(batch), {}
        if isinstance(batch, Mapping):
            return (), {key: value for key, value in batch.items() if self._takes(key)}
        if isinstance(batch, Tensor | PackedSequence):
            return (batch,), {}
        raise OptionError(
            "a batch must be a tensor, a tuple or list with the input first, or a mapping of keyword "
            f"arguments, but {in_words(batch)} came: have the loader give that, or call the network by "
            "forward_fn="
        )

    def _takes(self, key: str) -> bool:
        if self._signature is None:
            return True
        parameters = self._signature.parameters.values()
        return key in self._signature.parameters or any(p.kind is p.VAR_KEYWORD for p in parameters)


def in_words(batch: object) -> str:
    """What a batch is, for a reader.

    Example:
        >>> in_words(torch.ones(2, 3)), in_words({"x": 1}), in_words(())
        ('a tensor (2, 3)', "a mapping with 'x'", 'a tuple of 0, ()')
    """
    if isinstance(batch, Tensor):
        return f"a tensor {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"a mapping with {', '.join(map(repr, batch))}"
    if isinstance(batch, list | tuple):
        return (
            f"a {type(batch).__name__} of {len(batch)}, ({', '.join(type(item).__name__ for item in batch)})"
        )
    return type(batch).__name__


def _signature(network: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(network.forward)
    except (TypeError, ValueError):
        return None


def _is_sequence(batch: object) -> bool:
    return isinstance(batch, list | tuple) and not isinstance(batch, PackedSequence)
