"""Acts on a whole network: finds its modules and changes them."""

from __future__ import annotations

from normwright.network.walk import find_normalisers, replace_module

__all__ = ["find_normalisers", "replace_module"]
