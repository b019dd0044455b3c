"""Which options change a comparison, so that one that would be ignored is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from normwright.errors import OptionError
from normwright.lab.recipe import Recipe
from normwright.lab.user_code import is_user_code

_OF_BLOCKS = ("activation", "place", "dropout")

# What a built-in network is built by; what is put into it afterwards, its normalisers and weights, is every
# network's.
_BUILT_BY: dict[str, tuple[str, ...]] = {
    "mlp": ("depth", "width", *_OF_BLOCKS),
    "lenet": _OF_BLOCKS,
    "vgg": ("width", *_OF_BLOCKS),
    "resnet20": _OF_BLOCKS,
    "lstm": ("depth", "width", "dropout"),
}
_OF_NETWORKS = frozenset(option for heard in _BUILT_BY.values() for option in heard)

# Options that another choice makes useless: the choice, and the values of it that hear them.
_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "init_std": ("initialisation", ("normal",)),
    "momentum": ("optimiser", ("sgd",)),
    "warmup": ("schedule", ("cosine",)),
    "groups": ("norm", ("group", "ws")),
    "ghost_size": ("norm", ("ghost",)),
}


def check_heard(base: Recipe, norms: Iterable[str], given: Iterable[str]) -> None:
    """Every option that was given changes something.

    Args:
        base: the recipe that the runs share.
        norms: the normalisers of the runs.
        given: names of options; those that every comparison hears are let through.
    Raises:
        OptionError: one would be ignored.
    """
    chosen: Mapping[str, Any] = {
        "initialisation": (base.network.initialisation,),
        "optimiser": (base.training.optimiser,),
        "schedule": (base.training.schedule,),
        "norm": tuple(norms),
    }
    for option in given:
        if option in _OF_NETWORKS:
            _check_network(base.network.name, option)
        elif option == "image_size" and not base.data.name.startswith("images:"):
            raise OptionError(
                f"image_size is for images:DIR, but the data are {base.data.name}: leave it out"
            )
        elif option in _WITH:
            choice, hearing = _WITH[option]
            if not set(hearing) & set(chosen[choice]):
                raise OptionError(
                    f"{option} is for {choice} {' or '.join(hearing)}, but came with "
                    f"{', '.join(chosen[choice])}: leave it out"
                )


def _check_network(network: str, option: str) -> None:
    if option in _BUILT_BY.get(network, ()):
        return
    hearing = " and ".join(name for name, heard in _BUILT_BY.items() if option in heard)
    if is_user_code(network):
        raise OptionError(
            f"{option} is for {hearing}, but {network} builds its network itself: leave it out, and set it "
            "there"
        )
    if network in _BUILT_BY:  # else another error names it
        raise OptionError(f"{option} is for {hearing}, but the network is {network}: leave it out")
