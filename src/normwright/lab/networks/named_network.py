"""A network by its name, as it is trained: one of those that are built in, or a user's own."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

from torch import nn

from normwright.errors import OptionError
from normwright.lab.networks.building import BUILDERS, build_network
from normwright.lab.networks.own_network import OwnNetwork
from normwright.lab.recipe import NetworkRecipe
from normwright.lab.user_code import is_user_code, resolve

USUAL_NORM = "batch"


class NamedNetwork:
    """What builds a network, and where that stands.

    Args:
        name: one of `BUILDERS`, or `package.module:function` or `path/to/file.py:function`.
        norm: the normaliser of a built-in network, by default batch; a user's own has its own.
        sample_shape: without the batch axis; None where no data set tells it.
        classes: how many outputs; None where no data set tells it.
    Raises:
        OptionError: an unknown network or normaliser; a normaliser for a user's own network; a built-in one
            whose sample shape is not known.
        UserCodeError: the function is missing, or needs other arguments.
        Exception: whatever the user's code raises while it is imported, unchanged.
    Example:
        >>> NamedNetwork("torch.nn:Identity").call
        'Identity()'
    """

    def __init__(
        self,
        name: str,
        norm: str | None = None,
        sample_shape: tuple[int, ...] | None = None,
        classes: int | None = None,
    ) -> None:
        self._name = name
        if is_user_code(name):
            if norm is not None:
                raise OptionError(
                    f"norm goes with a built-in network ({', '.join(BUILDERS)}), but {name} is your own, "
                    "which has its own normalisers: leave it out"
                )
            own = OwnNetwork(name, sample_shape, classes)
            self._make, self.call = own.made, own.call
            return
        if name in BUILDERS and (sample_shape is None or classes is None):
            raise OptionError(
                f"{name} needs the shape of a sample and the number of classes, which batches alone do not "
                "tell: have the data function return (x_train, y_train, x_test, y_test), or name a function "
                "of your own that builds the network"
            )
        self.call = name
        self._make = functools.partial(_built, name, norm or USUAL_NORM, sample_shape or (), classes or 1)

    def build(self) -> nn.Module:
        """A new network, with its modules in the modes in which it is trained.

        Raises:
            OptionError: an unknown network or normaliser.
            ShapeError: samples that a built-in network cannot take.
            UserCodeError: the function returns something else.
            Exception: whatever the user's code raises, unchanged.
        """
        return self._make()

    @property
    def where(self) -> str:
        """File and line of the user's function, "nets.py:12", or "" where there is none to show."""
        if not is_user_code(self._name):
            return ""
        try:
            function = inspect.unwrap(resolve(self._name))
            file, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
        except (OSError, TypeError):  # made by a program, or written in C
            return ""
        return f"{_short(file)}:{line}" if file else ""


def _built(name: str, norm: str, sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    return build_network(NetworkRecipe(name=name), norm, sample_shape, classes).module


def _short(file: str) -> str:
    path = Path(file)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_posix()
