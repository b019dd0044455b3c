"""What a network is fed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputFacts:
    """One floating-point tensor among the arguments of a network.

    Args:
        name: the argument's name, or its position.
        shape: in the first mini-batch.
        axis: of its features: 1 for images and (N, features), the last for sequences.
        means, deviations: of each feature over all mini-batches; at most `FEATURES` evenly spaced
            ones.
        nonfinite: elements that are NaN or infinite; they are left out of the moments.
    """

    name: str
    shape: tuple[int, ...]
    axis: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    nonfinite: int
