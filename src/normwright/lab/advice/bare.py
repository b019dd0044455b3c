"""Leaves the normalisers out of a network."""

from __future__ import annotations

from torch import nn

from normwright.lab.placement import leave_fast_path
from normwright.network.walk import find_normalisers, replace_module


def leave_out_normalisers(network: nn.Module) -> None:
    """Puts the identity in the place of every normaliser, in place.

    Raises:
        OptionError: the network is itself a normaliser.
    Example:
        >>> network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        >>> leave_out_normalisers(network)
        >>> network[1]
        Identity()
    """
    found = find_normalisers(network)
    for name in found:
        # One that stands inside another goes with it.
        if not any(name.startswith(f"{outer}.") for outer in found):
            replace_module(network, name, nn.Identity())
    leave_fast_path(network)
