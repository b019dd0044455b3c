"""What a plan says: what becomes of each normaliser, and what each layer takes in."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.network.folding.block_affine import ChannelMap
from normwright.network.folding.sites import Site, Unfoldable


@dataclass
class LayerChange:
    """What one layer takes in.

    Args:
        weight: qualified name of its weight.
        bias: qualified name of its bias, which may have to be made, or None where it has none.
        groups: of the convolution.
        transposed: it is a transposed convolution.
        before: the map of its input, or None.
        after: the map of its output, or None.
        padded: its calls reach over their input's border, where what they are padded with has no shift.
    """

    weight: str
    bias: str | None
    groups: int
    transposed: bool
    before: ChannelMap | None = None
    after: ChannelMap | None = None
    padded: bool = False

    @property
    def layer(self) -> str:
        """Qualified name of the module that has the weight."""
        return self.weight.rpartition(".")[0]


@dataclass
class Decision:
    """What becomes of one normaliser.

    Args:
        sites: its calls.
        name: qualified name of its module, or of the module in whose forward the function is called.
        kind: its class, or the function.
        place: "before" or "after" for the layers that it goes into, "multiply-add" or "convolution" for
            what stands in its place, or "" where it stays.
        into: the layers.
        reason: why it went no further, or "".
        map: its map, where it is one.
    """

    sites: list[Site | Unfoldable]
    name: str
    kind: str
    place: str = ""
    into: tuple[str, ...] = ()
    reason: str = ""
    map: ChannelMap | None = None
