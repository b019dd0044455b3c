"""Finds the normalisers of a network by name, and replaces modules by name or gives them another class."""

from __future__ import annotations

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

import normwright.nn as ours
from normwright.errors import OptionError

#: Those that keep covariances where batch norm keeps variances.
WHITENING = (ours.WhiteningNorm1d, ours.WhiteningNorm2d, ours.WhiteningNorm3d)

#: Those whose moments in training are of a part of the batch.
GHOSTS = (ours.GhostBatchNorm1d, ours.GhostBatchNorm2d, ours.GhostBatchNorm3d)

#: Those that keep statistics of several domains.
SPLIT = (ours.SplitBatchNorm1d, ours.SplitBatchNorm2d, ours.SplitBatchNorm3d)

#: Those that may keep running statistics.
KEEPING = (_NormBase, *WHITENING, ours.RecurrentBatchNorm)

_NORMALISERS = (
    *(*KEEPING, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm),
    *(ours.FilterResponseNorm, ours.DynamicTanh),
)

# torchvision, detectron2, Transformers (DetrFrozenBatchNorm2d, …) and timm (FrozenBatchNormAct2d) each have
# one that derives from nn.Module alone; none is a dependency.
_FROZEN = re.compile(r"FrozenBatchNorm(Act)?\dd$")


def check_network(network: object) -> None:
    """Raises OptionError where it is none."""
    if isinstance(network, nn.Module):
        return
    came = f"the class {network.__name__}" if isinstance(network, type) else type(network).__name__
    raise OptionError(f"a network must be a torch.nn.Module, but is {came}: give the module itself")


def is_normaliser(module: nn.Module) -> bool:
    """Whether the module is a normaliser of PyTorch or of `normwright.nn`, or derives from one.

    Example:
        >>> is_normaliser(nn.SyncBatchNorm(4)), is_normaliser(nn.Identity())
        (True, False)
    """
    if isinstance(module, _NORMALISERS):
        return True
    return any(_FROZEN.search(ancestor.__name__) for ancestor in type(module).__mro__)


def find_normalisers(network: nn.Module) -> dict[str, nn.Module]:
    """Finds every normaliser of a network by its qualified name, in registration order.

    Batch (synchronised, frozen, ghost, split, masked and recurrent too), instance, layer, group, RMS and
    local response normalisers count, whitening, filter response norm and dynamic tanh, and whatever derives
    from them. A normalised LSTM is none: its normalisers are found within it. A module that stands under
    several names is listed once, under the first. The network itself, if it is a normaliser, has the name "".

    Example:
        >>> list(find_normalisers(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4))))
        ['1', '2']
    """
    return {name: module for name, module in network.named_modules() if is_normaliser(module)}


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` where the submodule `name` stands, under every name that the old one has.

    A module that is shared stays shared. Works in any container (Sequential, ModuleList, ModuleDict).

    Args:
        network: the network to change, in place.
        name: qualified name of a submodule, as `named_modules` gives it.
        module: the new module; it may hold the old one.
    Raises:
        OptionError: the network has no submodule of that name, or it is the network itself.
    Example:
        >>> network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        >>> replace_module(network, "1", nn.Identity())
        >>> network[1]
        Identity()
    """
    if not name:
        raise OptionError("a network cannot replace itself: wrap it in nn.Sequential and replace '0'")
    try:
        old = network.get_submodule(name)
    except AttributeError as error:
        raise OptionError(
            f"the network has no module {name!r} ({error}): take a name from network.named_modules()"
        ) from error
    # Gathered before the first change: a new module that holds the old one must not be walked into.
    seats = [
        (parent, key)
        for parent in network.modules()
        for key, child in parent._modules.items()
        if child is old
    ]
    for parent, key in seats:
        setattr(parent, key, module)


def take_classes(classes: dict[nn.Module, type[nn.Module]]) -> None:
    """Gives every module its class, or leaves all as they were."""
    before = {module: type(module) for module in classes}
    try:
        for module, kind in classes.items():
            object.__setattr__(module, "__class__", kind)
    except BaseException:
        for module, kind in before.items():
            object.__setattr__(module, "__class__", kind)
        raise
