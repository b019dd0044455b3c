"""What is put to the test: a network, by its name or as it stands, and how copies of it come to train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from normwright.errors import OptionError, unknown_name
from normwright.lab.advice.samples import Samples, read_samples
from normwright.lab.advice.trainee import Optimiser, Trainee, trainee
from normwright.lab.devices import device_of
from normwright.lab.grid import OPTIONS, make_base
from normwright.lab.networks.own_network import OwnNetwork
from normwright.lab.objective import Loss
from normwright.lab.optimisation import make_optimiser
from normwright.lab.plain import plain_tensors
from normwright.lab.recipe import NetworkRecipe, Recipe, TrainingRecipe
from normwright.lab.training import build
from normwright.lab.user_code import is_user_code
from normwright.network.batch_call import ForwardFn
from normwright.network.counting import how_many
from normwright.network.walk import find_normalisers
from normwright.nn import WeightNorm
from normwright.statistics.batches import unwrapped

# What a recipe must name and these tests vary themselves.
_VARIED: dict[str, Any] = {"batch_size": 1, "lr": 1e-3}

_OF_NETWORK = tuple(option for option, part in OPTIONS.items() if part is NetworkRecipe)
_OF_OPTIMISER = ("momentum", "weight_decay")
OFFERED = (*_OF_NETWORK, *_OF_OPTIMISER, "image_size")
"""What may be asked of a network, an optimiser or a data set by name."""


@dataclass(frozen=True)
class Subject:
    """A network and its data.

    Args:
        network, data: what they are called.
        samples: of the data.
        normalisers: how many the network holds.
        make: makes a network to train, from a seed.
        make_without: the same without its normalisers.
    """

    network: str
    data: str
    samples: Samples
    normalisers: int
    make: Callable[[int], Trainee]
    make_without: Callable[[int], Trainee]


def subject_of(
    network: nn.Module | str,
    data: Any,
    loss: str | Loss | None,
    *,
    optimiser: Optimiser | str,
    norm: str | None,
    device: str,
    data_dir: str | Path | None,
    forward_fn: ForwardFn | None,
    options: dict[str, Any],
) -> Subject:
    """Reads the data and finds out how the network is made.

    A network that stands is copied, and stays on its device; one that is named is built from each seed anew.

    Raises:
        OptionError: an option for a network that is not built here, or one that nothing has.
        DataError, UserCodeError: see `read_samples`, `OwnNetwork` and `build_network`.
    """
    for option in options:
        if option not in OFFERED:
            raise unknown_name("option", option, OFFERED)
    directory = None if data_dir is None else Path(data_dir)
    of_optimiser = {name: options.pop(name) for name in _OF_OPTIMISER if name in options}
    if isinstance(optimiser, str):
        recipe = TrainingRecipe(norm="none", optimiser=optimiser, **_VARIED, **of_optimiser)
        optimiser = partial(make_optimiser, recipe)
    elif of_optimiser:
        raise OptionError(
            f"{' and '.join(of_optimiser)} go with an optimiser by name, but the optimiser itself came: set "
            "them there"
        )
    samples = read_samples(data, image_size=options.pop("image_size", None), directory=directory)
    called = data if isinstance(data, str) else how_many(samples.count, "sample")
    if not isinstance(network, str):
        if norm is not None or options:
            came = ", ".join([*(["norm"] if norm else []), *options])
            raise OptionError(
                f"a network that stands is taken as it is, but {came} came too: leave it out, or name a "
                "function that builds the network"
            )
        module = unwrapped(network)

        def taken(seed: int, *, bare: bool = False) -> Trainee:
            return trainee(module, optimiser, loss, forward_fn, bare=bare)

        return Subject(
            type(module).__name__, called, samples, _count(module), taken, partial(taken, bare=True)
        )
    named = _Named(network, called, samples, loss, optimiser, norm, device_of(device), forward_fn, options)
    with_norms = named.build(0)
    return Subject(network, called, samples, _count(with_norms), named.make, partial(named.make, bare=True))


class _Named:
    """A network that a name and a recipe build."""

    def __init__(
        self,
        name: str,
        data: str,
        samples: Samples,
        loss: str | Loss | None,
        optimiser: Optimiser,
        norm: str | None,
        device: str,
        forward_fn: ForwardFn | None,
        options: dict[str, Any],
    ) -> None:
        self._name, self._samples, self._loss, self._forward_fn = name, samples, loss, forward_fn
        self._device = device
        own = is_user_code(name)
        # A function's network is taken with the normalisers that it has, unless others are asked for.
        self._as_it_is = own and norm is None
        if self._as_it_is and options:
            raise OptionError(
                f"{name} builds its network itself, but {', '.join(options)} came too: leave it out, or ask "
                "for a norm, which is then put in as by `compare`"
            )
        options.setdefault("initialisation", "own" if own else "xavier")
        self._recipe = make_base(name, data, norm=norm or "batch", device=device, **_VARIED, **options)
        self._optimiser = optimiser
        if not self._as_it_is and (samples.sample_shape is None or not samples.classes):
            raise OptionError(
                f"{name} is built for the shape of the samples and the number of classes, which the data do "
                "not tell: batches must be (x, labels), with the number of a class for each label"
            )

    def build(self, seed: int, *, bare: bool = False) -> nn.Module:
        """The network whose weights are drawn from the seed."""
        with plain_tensors():
            if self._as_it_is:
                torch.manual_seed(seed)
                own = OwnNetwork(self._name, self._samples.sample_shape, len(self._samples.classes) or None)
                return own.build().train().to(self._device)
            return build(self._with(seed, bare), _Shape(self._samples)).module

    def make(self, seed: int, *, bare: bool = False) -> Trainee:
        """A copy of it that can train."""
        network = self.build(seed, bare=bare)
        return trainee(network, self._optimiser, self._loss, self._forward_fn, bare=bare and self._as_it_is)

    def _with(self, seed: int, bare: bool) -> Recipe:
        training = replace(self._recipe.training, seed=seed)
        return replace(self._recipe, training=replace(training, norm="none") if bare else training)


class _Shape:
    """The shape of the samples as `build` asks for it."""

    def __init__(self, samples: Samples) -> None:
        assert samples.sample_shape is not None
        self.sample_shape, self.classes = samples.sample_shape, samples.classes


def _count(network: nn.Module) -> int:
    """The normalisers of a network, weight norm too, which is no module that a batch goes through."""
    return len(find_normalisers(network)) + sum(isinstance(part, WeightNorm) for part in network.modules())
