"""Which units or channels of a layer are never active."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Positions per unit and call that are looked at first. Most units show themselves there; the rest are read
#: whole, so that what counts as dead was inactive in every element.
_FIRST_LOOK = 64


class Units:
    """The units of one layer, and which of them have been active.

    Args:
        count: how many there are.
        spatial: each has a value at several positions of a sample.
    """

    def __init__(self, count: int, spatial: bool) -> None:
        self.count = count
        self.spatial = spatial
        self.seen = 0
        self.steady = True
        self._silent: Tensor | None = None

    def watch(self, y: Tensor, axis: int, is_flat: Callable[[Tensor], Tensor]) -> None:
        """Looks for activity in one output.

        Args:
            y: detached.
            axis: of the units.
            is_flat: tells which outputs are in a flat part.
        """
        if y.shape[axis] != self.count:
            self.steady = False
            return
        if self.count:
            self.seen += y.numel() // self.count
        silent = torch.arange(self.count, device=y.device) if self._silent is None else self._silent
        rows = y.movedim(axis, 0)
        for look in (_few_of(rows), rows):
            if not len(silent):
                break
            part = look if len(silent) == self.count else look.index_select(0, silent)
            active = ~is_flat(part).flatten(1).all(1)
            silent = silent[~active]
        self._silent = silent

    def dead(self) -> tuple[int, ...]:
        """Units that were never active, where any element was seen."""
        return tuple(self._silent.tolist()) if self._silent is not None and self.seen else ()


def _few_of(rows: Tensor) -> Tensor:
    """About `_FIRST_LOOK` elements of each row, by taking every so many along each axis."""
    left = -(-(rows.numel() // max(len(rows), 1)) // _FIRST_LOOK)
    for axis in range(rows.dim() - 1, 0, -1):
        step = min(left, rows.shape[axis])
        if step > 1:
            rows = rows[(slice(None),) * axis + (slice(None, None, step),)]
            left = -(-left // step)
    return rows
