"""A run, written down: everything that decides its numbers, and the hash that names it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from normwright.errors import OptionError, unknown_name

NORMS = (
    "none",
    "batch",
    "layer",
    "group",
    "instance",
    "rms",
    "lrn",
    "renorm",
    "ghost",
    "whitening",
    "frn",
    "dyt",
    "weight",
    "ws",
    "recurrent-batch",
    "recurrent-layer",
)
ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "prelu", "rrelu", "maxout")
PLACES = ("before", "after")
INITIALISATIONS = ("own", "xavier", "kaiming", "normal")
OPTIMISERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine")

# Fields that came later are left out of a recipe's text at their default, so that a run from before
# they came keeps its name, and is not done again.
_ADDED = frozenset({"affine", "ghost_size", "shuffle", "samples", "max_steps", "label_noise"})

# What `describe` tells, and what tells a person nothing.
_DESCRIBED = frozenset({"name", "norm", "batch_size", "lr", "seed", "digest"})


def _one_of(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise unknown_name(what, name, known)


def _whole(what: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise OptionError(f"{what} must be at least {least} and a whole number, but is {_shown(value)}")


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise OptionError(f"{what} must be a finite number, but is {_shown(value)}")
    return float(value)


def _above_zero(what: str, value: object) -> None:
    if _number(what, value) <= 0:
        raise OptionError(f"{what} must be above zero, but is {_shown(value)}")


def _not_below_zero(what: str, value: object) -> None:
    if _number(what, value) < 0:
        raise OptionError(f"{what} must be at least 0, but is {_shown(value)}")


def _share(what: str, value: object) -> None:
    if not 0 <= _number(what, value) < 1:
        raise OptionError(f"{what} must be in [0, 1), but is {_shown(value)}")


def _flag(what: str, value: object) -> None:
    if not isinstance(value, bool):
        raise OptionError(f"{what} must be True or False, but is {_shown(value)}")


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, int | float) else f"{value!r} of type {type(value).__name__}"


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe:
    """Which network, and how it is built.

    Args:
        name: `mlp`, `lenet`, `vgg`, `resnet20`, `lstm`, or a user's `package.module:function` or
            `path/to/file.py:function`.
        depth: hidden layers of `mlp`, layers of `lstm`.
        width: units of each hidden layer of `mlp` and `lstm`; channels of the first stage of `vgg`.
        activation: one of `ACTIVATIONS`, in the built-in networks.
        place: the normaliser `before` or `after` the activation, in the built-in networks.
        initialisation: `own` leaves the weights as the network's code made them.
        init_std: standard deviation of `normal`.
        dropout: probability, in the built-in networks.
        groups: the most groups of group norm; each group keeps at least two channels.
        ghost_size: samples in a virtual batch of ghost norm; must divide the batch size.
        affine: whether the normalisers have a weight and a bias, as far as their kind has any.
        digest: SHA-256 of a user's source file, so that a changed file is another recipe; else empty.
    """

    name: str
    depth: int = 6
    width: int = 100
    activation: str = "sigmoid"
    place: str = "before"
    initialisation: str = "xavier"
    init_std: float = 0.01
    dropout: float = 0.0
    groups: int = 8
    ghost_size: int = 32
    affine: bool = True
    digest: str = ""

    def __post_init__(self) -> None:
        for what in ("depth", "width", "groups", "ghost_size"):
            _whole(what, getattr(self, what), 1)
        _above_zero("init_std", self.init_std)
        _share("dropout", self.dropout)
        _flag("affine", self.affine)
        _one_of("activation", self.activation, ACTIVATIONS)
        _one_of("place", self.place, PLACES)
        _one_of("initialisation", self.initialisation, INITIALISATIONS)


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which data set, and how it is split.

    Args:
        name: `digits`, `fashion-mnist`, `mnist`, `cifar10`, `images:DIR`, or a user's function.
        image_size: height and width, in pixels, that `images:DIR` scales to.
        validation: share of the training set that is kept to choose the learning rate.
        digest: SHA-256 of the tensors, so that changed data are another recipe; filled in on loading.
    """

    name: str
    image_size: int = 32
    validation: float = 0.1
    digest: str = ""

    def __post_init__(self) -> None:
        _whole("image_size", self.image_size, 1)
        if not 0 < _number("validation", self.validation) < 1:
            raise OptionError(f"validation must be a share between 0 and 1, but is {self.validation!r}")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How the network is trained.

    Args:
        norm: one of `NORMS`.
        batch_size: samples per step; the last batch of an epoch may be smaller.
        lr: the learning rate (its peak, under `cosine`).
        epochs: passes over the training split.
        seed: seeds the initial weights, the order of the samples and dropout.
        optimiser: `sgd` or `adamw`.
        momentum: of `sgd`.
        weight_decay: as the optimiser defines it, on all parameters.
        schedule: `constant`, or `cosine` with a linear warm-up.
        warmup: share of all steps, for `cosine`.
        loss: `cross_entropy`, `mse` (on one-hot labels), or a user's function (outputs, labels) -> scalar.
        metric: `accuracy`, or a user's function (outputs, labels) -> float; higher is better.
        evaluations: how often per epoch the validation metric is taken, at least.
        records: how many times in all the layers are recorded; 0 records nothing.
        threads: CPU threads of one run; part of the recipe because sums depend on it to the bit.
        device: `cpu`, `cuda`, …
        shuffle: a new order of the samples every epoch; False keeps the first one, which the seed draws.
        samples: how many of the training split are used, 0 for all: the same ones in every run, and
            those of a smaller number among those of a larger.
        label_noise: share of the labels of these samples that are wrong: another class, drawn once for all
            runs. Validation and test labels stay right.
        max_steps: ends a run after so many training steps, 0 for `epochs` alone. The schedule, the
            evaluations and the records are spread over the steps that there are.
    """

    norm: str
    batch_size: int
    lr: float
    epochs: int = 10
    seed: int = 0
    optimiser: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.05
    loss: str = "cross_entropy"
    metric: str = "accuracy"
    evaluations: int = 4
    records: int = 40
    threads: int = 1
    device: str = "cpu"
    shuffle: bool = True
    samples: int = 0
    max_steps: int = 0
    label_noise: float = 0.0
    digest: str = ""

    def __post_init__(self) -> None:
        _one_of("normaliser", self.norm, NORMS)
        for what in ("batch_size", "epochs", "evaluations", "threads"):
            _whole(what, getattr(self, what), 1)
        for what in ("seed", "records", "samples", "max_steps"):
            _whole(what, getattr(self, what), 0)
        _flag("shuffle", self.shuffle)
        _not_below_zero("weight_decay", self.weight_decay)
        _above_zero("lr", self.lr)
        _share("momentum", self.momentum)
        _share("warmup", self.warmup)
        _share("label_noise", self.label_noise)
        _one_of("optimiser", self.optimiser, OPTIMISERS)
        _one_of("schedule", self.schedule, SCHEDULES)


def _plain(part: NetworkRecipe | DataRecipe | TrainingRecipe) -> dict[str, Any]:
    """The fields, numbers as what their fields are declared to be, so that 1 and 1.0 are one recipe."""
    kinds: dict[Any, Callable[[Any], Any]] = {"float": float, "int": int, "bool": bool}
    return {
        field.name: kinds.get(field.type, str)(getattr(part, field.name))
        for field in dataclasses.fields(part)
        if not (field.name in _ADDED and getattr(part, field.name) == field.default)
    }


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run: network, data and training. Equal recipes give equal numbers on one machine.

    Example:
        >>> recipe = Recipe(network=NetworkRecipe(name="lenet"), data=DataRecipe(name="digits"),
        ...                 training=TrainingRecipe(norm="batch", batch_size=32, lr=0.1))
        >>> Recipe.from_json(recipe.to_json()) == recipe
        True
        >>> len(recipe.hash)
        16
    """

    network: NetworkRecipe
    data: DataRecipe
    training: TrainingRecipe
    version: int = 1

    def to_json(self) -> str:
        """The recipe as JSON with sorted keys: the text that is hashed. A learning rate of 1 is 1.0."""
        parts = {name: _plain(getattr(self, name)) for name in ("network", "data", "training")}
        return json.dumps({**parts, "version": self.version}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote."""
        parts: dict[str, Any] = json.loads(text)
        return cls(
            network=NetworkRecipe(**parts["network"]),
            data=DataRecipe(**parts["data"]),
            training=TrainingRecipe(**parts["training"]),
            version=parts["version"],
        )

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that name the run."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One line for a person: what is trained, with which normaliser, at which settings."""
        t = self.training
        return (
            f"{self.network.name} on {self.data.name}, norm {t.norm}, batch {t.batch_size}, "
            f"lr {t.lr:g}, seed {t.seed}"
        )

    def settings(self) -> str:
        """What else is not at its default, for a person.

        Example:
            >>> training = TrainingRecipe(norm="batch", batch_size=32, lr=0.1, momentum=0.9)
            >>> Recipe(network=NetworkRecipe(name="mlp", depth=3), data=DataRecipe(name="digits"),
            ...        training=training).settings()
            'depth 3, momentum 0.9'
        """
        parts = (self.network, self.data, self.training)
        fields = ((field, getattr(part, field.name)) for part in parts for field in dataclasses.fields(part))
        others = (
            f"{field.name} {value}"
            for field, value in fields
            if field.name not in _DESCRIBED and value != field.default
        )
        return ", ".join(others) or "all at their defaults"
