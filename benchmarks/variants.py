"""One network three times: with PyTorch's normalisers, accelerated, and with none."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

import normwright as nw
from normwright.network.walk import find_normalisers, replace_module


def eager(network: nn.Module) -> nn.Module:
    """The network as it is."""
    return copy.deepcopy(network)


def accelerated(network: nn.Module) -> nn.Module:
    """The network with normwright's normalisers, and what follows them computed with them."""
    return nw.accelerate(network)


def without(network: nn.Module) -> nn.Module:
    """The network with `nn.Identity` for its normalisers: what normalising is compared with."""
    bare = copy.deepcopy(network)
    for name in find_normalisers(bare):
        replace_module(bare, name, nn.Identity())
    return bare


VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "eager": eager,
    "accelerated": accelerated,
    "without": without,
}
