"""Whether the processes that train together hold the same network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RankFacts:
    """What differs between the ranks of a process group.

    Args:
        ranks: how many there are.
        parameters: names of those whose values differ, or that not all have.
        buffers: likewise, but for running statistics.
        settings: what differs of the modules' classes, modes and settings, in words.
        statistics: normalisers whose running statistics differ, with the largest distance between two ranks'
            means, in deviations.
    """

    ranks: int
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    settings: tuple[str, ...]
    statistics: tuple[tuple[str, float], ...]
