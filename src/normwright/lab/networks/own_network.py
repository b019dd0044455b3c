"""A network that a user's function builds, to be filled from a checkpoint."""

from __future__ import annotations

from torch import nn

from normwright.errors import UserCodeError
from normwright.lab.networks.user_network import arguments_of
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
        settings = "the settings that the checkpoint was trained with"
        self._arguments = arguments_of(self._function, name, sample_shape, classes, others=settings)
        if None in self._arguments:
            raise UserCodeError(
                f"{name} needs (sample_shape, classes), which only a data set tells: give --data the one "
                "that it was trained on, or give its parameters defaults"
            )

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
