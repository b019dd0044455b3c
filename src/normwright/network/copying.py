"""Copies a network: whatever it was called under, and in another dtype with all that it keeps."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from normwright.errors import OptionError
from normwright.network.calling import mapped
from normwright.network.spread import FSDP, spread_by

Network = TypeVar("Network", bound=nn.Module)

_OF_MODULE = frozenset(nn.Module().__dict__)


@torch.inference_mode(False)  # else the copy's tensors would be that mode's, and could not be trained
def copied(network: Network) -> Network:
    """A deep copy; what was computed with gradients, which `deepcopy` refuses, is copied without them.

    So is a weight that weight norm computed, which is computed anew, and a state that a call left behind.
    Process groups are not copied, but shared.

    Raises:
        OptionError: an attribute holds what cannot be copied; it is named. Or FSDP spread the network over
            processes.
    """
    check_can_be_copied(network)
    memo = copied_already(network)
    try:
        return copy.deepcopy(network, dict(memo))
    except Exception as error:
        culprit = _uncopied(network, memo)
        if culprit is None:
            raise
        where, value = culprit
        raise OptionError(
            f"the network must be one that copy.deepcopy can copy, but {where!r} holds what it cannot, in an "
            f"object of class {type(value).__name__} ({type(error).__name__}: {error}): detach() the tensors "
            "in it that were computed with gradients, or set it to None meanwhile"
        ) from error


def check_can_be_copied(network: nn.Module) -> None:
    """Raises OptionError where PyTorch refuses to copy a network, as it does where FSDP spread it."""
    by = spread_by(network)
    if by in FSDP:
        raise OptionError(
            f"the network must be one that can be copied, but {by} spread its parameters over processes, and "
            "PyTorch copies no such network: act on it before it is spread, or where inplace=True is offered "
            "by that"
        )


def copied_already(network: nn.Module) -> dict[int, Any]:
    """A memo for `deepcopy`: process groups as they are, and what was computed with gradients, without."""
    memo: dict[int, Any] = {}
    if torch.distributed.is_available():
        held = [value for module in network.modules() for value in vars(module).values()]
        memo = {id(value): value for value in held if isinstance(value, torch.distributed.ProcessGroup)}

    def note(value: Tensor) -> Tensor:
        if not value.is_leaf and id(value) not in memo:
            memo[id(value)] = value.detach().clone()
        return value

    for module in network.modules():
        mapped(vars(module), note)
    return memo


def _uncopied(network: nn.Module, memo: dict[int, Any]) -> tuple[str, Any] | None:
    """The first attribute that cannot be copied by itself, by its module's name and its own."""
    there = memo | {id(module): module for module in network.modules()}
    for name, module in network.named_modules():
        for attribute, value in vars(module).items():
            try:
                copy.deepcopy(value, dict(there))
            except Exception:
                return f"{name}.{attribute}".lstrip("."), value
    return None


def in_dtype(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose floating-point tensors are of a dtype, those too that are no buffers.

    Some networks keep tensors in attributes when they are first called (LeViT's biases by position), which
    `network.to(dtype)` leaves as they are.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> network.cache = {"mask": torch.ones(1)}
        >>> in_dtype(network, torch.float64).cache
        {'mask': tensor([1.], dtype=torch.float64)}
    """

    def cast(value: Tensor) -> Tensor:
        return value.to(dtype) if value.is_floating_point() else value

    new = copied(network)
    new.double() if dtype == torch.float64 else new.float()
    for module in new.modules():
        for name, value in list(vars(module).items()):
            if name not in _OF_MODULE and isinstance(value, Tensor | dict | list | tuple):
                vars(module)[name] = mapped(value, cast)
    return new


def first_on_meta(network: nn.Module) -> str | None:
    """The name of a network's first tensor that has a shape and no numbers."""
    held = [*network.named_parameters(), *network.named_buffers()]
    return next((name for name, tensor in held if tensor.is_meta), None)


def check_holds_numbers(network: nn.Module) -> None:
    """Raises OptionError where a network's tensors have shapes and no numbers."""
    name = first_on_meta(network)
    if name is not None:
        raise OptionError(
            f"the network must hold numbers, but {name!r} is on the device meta, which has shapes alone: "
            "network.to_empty(device=...) and load its weights first"
        )
