"""Affine maps that mix the channels of a group: what whitening by fixed statistics is.

Arithmetic is in float64.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.network.folding.affine import Affine


@dataclass(frozen=True, eq=False)
class BlockAffine:
    """y = M·x + shift, where M is a matrix for each group of neighbouring channels.

    Args:
        matrix: (G, d, d), float64, of G groups of d channels.
        shift: (C,), float64, C = G·d.
    Raises:
        ShapeError: they are not of these shapes.
        DtypeError: one is not float64.
    Example:
        >>> swapped = BlockAffine(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]).double(), torch.ones(2).double())
        >>> swapped.times(torch.tensor([2.0, 5.0]).double())
        tensor([5., 2.], dtype=torch.float64)
    """

    matrix: Tensor
    shift: Tensor

    def __post_init__(self) -> None:
        square = self.matrix.dim() == 3 and self.matrix.shape[1] == self.matrix.shape[2]
        if not square or self.shift.shape != (self.matrix.shape[0] * self.matrix.shape[1],):
            raise ShapeError(
                "matrix must be (G, d, d) and shift (G·d,), but they have the shapes "
                f"{list(self.matrix.shape)} and {list(self.shift.shape)}"
            )
        for name, value in (("matrix", self.matrix), ("shift", self.shift)):
            if value.dtype != torch.float64:
                raise DtypeError(f"{name} must be float64, but is {value.dtype}: convert it first")

    @classmethod
    def of(cls, affine: ChannelMap, size: int) -> BlockAffine:
        """A map as one of groups of `size` channels, each whole groups of the map's own."""
        if isinstance(affine, Affine):
            return cls(torch.diag_embed(affine.scale.reshape(-1, size)), affine.shift)
        parts = affine.matrix.reshape(-1, size // affine.size, affine.size, affine.size)
        return cls(torch.stack([torch.block_diag(*part) for part in parts]), affine.shift)

    @property
    def channels(self) -> int:
        """C."""
        return self.shift.shape[0]

    @property
    def size(self) -> int:
        """d, the channels of a group."""
        return self.matrix.shape[1]

    @property
    def transposed(self) -> BlockAffine:
        """Mᵀ·x + shift."""
        return BlockAffine(self.matrix.mT.contiguous(), self.shift)

    def without_shift(self) -> BlockAffine:
        """M·x."""
        return dataclasses.replace(self, shift=torch.zeros_like(self.shift))

    def times(self, rows: Tensor) -> Tensor:
        """M times something that has its channels along the first axis, (C, …)."""
        groups = rows.reshape(len(self.matrix), self.size, -1)
        return (self.matrix.to(rows.device) @ groups).reshape(rows.shape)

    def split(self, sizes: Sequence[int]) -> list[BlockAffine] | None:
        """The maps of parts of so many channels; None where a part ends within a group."""
        if any(size % self.size for size in sizes):
            return None
        matrices = self.matrix.split([size // self.size for size in sizes])
        return list(map(BlockAffine, matrices, self.shift.split(list(sizes))))

    def check_finite(self) -> None:
        """Raises OptionError for the first group that is not."""
        beyond = ~(
            self.matrix.flatten(1).isfinite().all(1) & self.shift.view(-1, self.size).isfinite().all(1)
        )
        if beyond.any():
            group = int(beyond.nonzero()[0])
            raise OptionError(
                f"matrix and shift must be finite, but in group {group} of {self.size} channels are not: "
                "look for NaN in the statistics, weight and bias"
            )


ChannelMap = Affine | BlockAffine


def composed(first: ChannelMap, following: ChannelMap) -> ChannelMap:
    """One map first, and then the following one, as one map.

    Groups of different sizes are joined to groups that both divide.

    Example:
        >>> doubled = Affine(torch.full((2,), 2.0).double(), torch.ones(2).double())
        >>> swapped = BlockAffine(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]).double(), torch.zeros(2).double())
        >>> composed(doubled, swapped).matrix
        tensor([[[0., 2.],
                 [2., 0.]]], dtype=torch.float64)
    """
    if isinstance(first, Affine) and isinstance(following, Affine):
        return first.then(following)
    size = math.lcm(*(part.size for part in (first, following) if isinstance(part, BlockAffine)))
    inner, outer = BlockAffine.of(first, size), BlockAffine.of(following, size)
    return BlockAffine(outer.matrix @ inner.matrix, outer.times(inner.shift) + outer.shift)


def joined_with_identity(affine: ChannelMap, parts: Sequence[tuple[bool, int]]) -> ChannelMap | None:
    """The map of channels side by side, some parts of which a map is of, and the rest stays.

    Args:
        affine: the map.
        parts: of each, whether the map is of it, and how many channels it has.
    Returns:
        None where a part begins within a group.
    """
    shifts = [affine.shift if mapped else affine.shift.new_zeros(size) for mapped, size in parts]
    if isinstance(affine, Affine):
        scales = [affine.scale if mapped else affine.scale.new_ones(size) for mapped, size in parts]
        return Affine(torch.cat(scales), torch.cat(shifts))
    if any(size % affine.size for _, size in parts):
        return None
    identity = torch.eye(affine.size, dtype=torch.float64, device=affine.matrix.device)
    matrices = [affine.matrix if m else identity.repeat(size // affine.size, 1, 1) for m, size in parts]
    return BlockAffine(torch.cat(matrices), torch.cat(shifts))


def is_same(one: ChannelMap, other: ChannelMap) -> bool:
    """Whether two maps are the same, to the bit."""
    return type(one) is type(other) and all(
        torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one)
    )
