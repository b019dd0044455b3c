"""Which options change a comparison, so that one that would be ignored is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from normwright.errors import OptionError
from normwright.lab.data.load import READERS
from normwright.lab.recipe import Recipe
from normwright.lab.user_code import IMAGES, is_user_code

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

# Options of every normaliser but these, under which they change nothing.
_NOT_OF_NORMS: dict[str, tuple[str, ...]] = {"place": ("none",), "affine": ("none", "lrn")}


def check_heard(base: Recipe, norms: Iterable[str], given: Iterable[str]) -> None:
    """Every option that was given changes something.

    Args:
        base: the recipe that the runs share.
        norms: the normalisers of the runs.
        given: names of options; those that every comparison hears are let through.
    Raises:
        OptionError: some would be ignored; all of them are told.
    """
    chosen: Mapping[str, tuple[str, ...]] = {
        "initialisation": (base.network.initialisation,),
        "optimiser": (base.training.optimiser,),
        "schedule": (base.training.schedule,),
        "norm": tuple(norms),
    }
    ignored = []
    for option in given:
        if option in _OF_NETWORKS:
            why = _why_not_of_network(option, base.network.name) or _why_not_of_norms(option, chosen["norm"])
        elif option == "image_size":
            why = _why_not_of_data(base.data.name)
        elif option in _WITH:
            why = _why_not_with(*_WITH[option], chosen)
        else:
            why = _why_not_of_norms(option, chosen["norm"])
        if why:
            ignored.append(f"{option}= is for {why}")
    if ignored:
        raise OptionError("; ".join(ignored))


# A name that nothing has is left to the error that names it.
def _why_not_of_network(option: str, network: str) -> str:
    if option in _BUILT_BY.get(network, ()):
        return ""
    *others, last = (name for name, heard in _BUILT_BY.items() if option in heard)
    hearing = f"{', '.join(others)} and {last}"
    if is_user_code(network):
        return f"{hearing}, but {network} builds its network itself: leave it out, and set it there"
    return f"{hearing}, but the network is {network}: leave it out" if network in _BUILT_BY else ""


def _why_not_of_data(data: str) -> str:
    offered = data in READERS or is_user_code(data)
    return f"{IMAGES}DIR, but the data are {data}: leave it out" if offered else ""


def _why_not_with(choice: str, hearing: tuple[str, ...], chosen: Mapping[str, tuple[str, ...]]) -> str:
    if set(hearing) & set(chosen[choice]):
        return ""
    names = " or ".join(hearing)
    return f"{choice} {names}, but came with {', '.join(chosen[choice])}: leave it out, or take {names}"


def _why_not_of_norms(option: str, norms: tuple[str, ...]) -> str:
    deaf = _NOT_OF_NORMS.get(option, ())
    if not set(norms) <= set(deaf):
        return ""
    return f"a normaliser other than {' and '.join(deaf)}, but came with {', '.join(norms)}: leave it out"
