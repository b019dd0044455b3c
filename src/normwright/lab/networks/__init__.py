"""Networks for experiments: built in, or the user's own, with the normaliser of the recipe in place."""

from __future__ import annotations

from normwright.lab.networks.building import BUILDERS, BuiltNetwork, build_network

__all__ = ["BUILDERS", "BuiltNetwork", "build_network"]
