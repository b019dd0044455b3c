"""The largest rounding errors of a folded network and of the unfolded one, over several examples.

One example of a network with two outputs says little: its largest error is that of one of two numbers, and
where chance rounded them well any other network looks ten times worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normwright.network.calling import call_of
from normwright.network.folding.measure import compare

EXAMPLES = 8


@dataclass(frozen=True)
class FoldErrors:
    """Against the network in float64, in ulps at the largest magnitude of each example's output."""

    folded: float
    unfolded: float
    examples: int


def fold_errors(network: nn.Module, folded: nn.Module, example: Tensor) -> FoldErrors:
    """The errors over the example and others of its shape.

    Args:
        network: in evaluation mode.
        folded: the folded network.
        example: drawn from a normal distribution, as the others are.
    """
    generator = torch.Generator().manual_seed(2)
    found = []
    for _ in range(EXAMPLES):
        # Any error is allowed: here it is measured, and judged by whoever reads the table.
        difference = compare(network, folded, call_of(example), tolerance=float("inf"))
        assert difference.folded_ulps is not None
        assert difference.unfolded_ulps is not None
        found.append((difference.folded_ulps, difference.unfolded_ulps))
        example = torch.randn(example.shape, generator=generator)
    of_folded, of_unfolded = zip(*found, strict=True)
    return FoldErrors(max(of_folded), max(of_unfolded), EXAMPLES)
