"""A network that a user's function builds, to be filled from a checkpoint."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from normwright.errors import UserCodeError
from normwright.lab.networks.user_network import check_makes, takes
from normwright.lab.user_code import resolve


class OwnNetwork:
    """A user's function, and how it is called.

    That is without arguments where it can be, else as function(sample_shape, classes).

    Args:
        name: `package.module:function` or `path/to/file.py:function`.
        sample_shape: without the batch axis; None where no data set tells it.
        classes: how many outputs; None where no data set tells it.
    Raises:
        UserCodeError: the function is missing, is a network, or needs other arguments.
        Exception: whatever the user's code raises while it is imported, unchanged.
    Example:
        >>> OwnNetwork("torch.nn:Identity").build()
        Identity()
    """

    def __init__(
        self, name: str, sample_shape: tuple[int, ...] | None = None, classes: int | None = None
    ) -> None:
        self._name = name
        self._function = resolve(name)
        check_makes(self._function, name)
        self._arguments: tuple[Any, ...] = ()
        if takes(self._function):
            return
        if not takes(self._function, sample_shape, classes):
            raise UserCodeError(
                f"{name} must be callable without arguments, or with (sample_shape, classes), but takes "
                f"{inspect.signature(self._function)}: write a function that calls it with the settings that "
                "the checkpoint was trained with"
            )
        if sample_shape is None or classes is None:
            raise UserCodeError(
                f"{name} needs (sample_shape, classes), which only a data set tells: give --data the one "
                "that it was trained on, or give its parameters defaults"
            )
        self._arguments = (sample_shape, classes)

    @property
    def call(self) -> str:
        """The call as it is written in Python, where the function was imported."""
        return f"{self._name.rpartition(':')[2]}({', '.join(map(repr, self._arguments))})"

    def build(self) -> nn.Module:
        """A new network, in inference mode; see `made`."""
        return self.made().eval()

    def made(self) -> nn.Module:
        """A new network, each module in the mode in which the function leaves it.

        Raises:
            UserCodeError: the function returns something else.
            Exception: whatever the user's code raises, unchanged.
        """
        network = self._function(*self._arguments)
        if not isinstance(network, nn.Module):
            raise UserCodeError(
                f"{self._name} must return a torch.nn.Module, but returned "
                f"{type(network).__name__}: {network!r:.80}"
            )
        return network
