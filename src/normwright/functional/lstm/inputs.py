"""What one layer of a normalised LSTM takes, in one direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from normwright.functional.lstm.step_norm import StepNorm


class LstmInputs(NamedTuple):
    """All that a derivative is taken by, for N sequences of I inputs, S elements in all, and H units.

    The gates stand in PyTorch's order: i, f, g, o.

    Args:
        x: (S, I), the steps one after the other.
        hidden, cell: (N, H), before the first step.
        weight_ih: (4H, I).
        weight_hh: (4H, H).
        bias: (4H,), or None for 0.
        gain_ih, gain_hh: (4H,), the gains of the two paths' normalisers; None for 1.
        gain_c, bias_c: (H,), those of the cell's; None for 1 and 0.
    """

    x: Tensor
    hidden: Tensor
    cell: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias: Tensor | None
    gain_ih: Tensor | None
    gain_hh: Tensor | None
    gain_c: Tensor | None
    bias_c: Tensor | None


@dataclass(frozen=True, eq=False)
class LstmNorms:
    """The three normalisers of a layer, for one pass over the time steps."""

    of_input: StepNorm
    of_hidden: StepNorm
    of_cell: StepNorm

    def close(self) -> None:
        """Ends a forward pass."""
        for norm in (self.of_input, self.of_hidden, self.of_cell):
            norm.close()
