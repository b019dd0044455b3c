"""A network that a user's function builds, to be filled from a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from normwright.errors import UserCodeError
from normwright.lab.user_code import resolve


def build_own_network(name: str, sample_shape: tuple[int, ...] | None, classes: int | None) -> nn.Module:
    """The network of a user's function, in inference mode.

    The function is called without arguments where it can be, else, as by `compare`, as
    function(sample_shape, classes).

    Args:
        name: `package.module:function` or `path/to/file.py:function`.
        sample_shape: without the batch axis; None where no data set tells it.
        classes: how many outputs; None where no data set tells it.
    Raises:
        UserCodeError: the function is missing, needs other arguments, or returns no network.
        Exception: whatever the user's code raises, unchanged.
    """
    function = resolve(name)
    if _takes(function):
        network = function()
    elif not _takes(function, sample_shape, classes):
        raise UserCodeError(
            f"{name} must be callable without arguments, or with (sample_shape, classes), but takes "
            f"{inspect.signature(function)}: write a function that calls it with the settings of the checkpoint"
        )
    elif sample_shape is None or classes is None:
        raise UserCodeError(
            f"{name} needs (sample_shape, classes), which only a data set tells: give --data one of the data "
            "sets that it was trained on, or its parameters defaults"
        )
    else:
        network = function(sample_shape, classes)
    if not isinstance(network, nn.Module):
        raise UserCodeError(
            f"{name} must return a torch.nn.Module, but returned {type(network).__name__}: {network!r:.80}"
        )
    return network.eval()


def _takes(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # some classes written in C have no signature
        return not arguments
    return True
