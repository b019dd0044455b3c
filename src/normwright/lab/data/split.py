"""A share of the samples held out, class by class, the same on every machine and in every run."""

from __future__ import annotations

import numpy as np
import torch

# Fixed, and not the run's seed: seeds are to differ in weights and order alone, on the same data.
SEED = 20150211


def stratified(labels: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The indices that stay and those held out, each in rising order.

    Of a class of n samples share·n are held out, rounded; at least one and at most n − 1, so that no
    class is lost on either side. A class of a single sample stays.

    Args:
        labels: (N,), integer.
        share: held out, in (0, 1).
    Returns:
        (stay, held_out), int64, of N indices together.
    Example:
        >>> stay, held_out = stratified(torch.tensor([0, 0, 0, 1, 1, 2]), 0.1)
        >>> len(stay), sorted(torch.tensor([0, 0, 0, 1, 1, 2])[held_out].tolist())
        (4, [0, 1])
    """
    # NumPy keeps RandomState's stream for ever; its newer generators and torch's may change theirs.
    generator = np.random.RandomState(SEED)
    values = labels.cpu().numpy()
    held_out = np.zeros(len(values), dtype=bool)
    for label in np.unique(values):
        members = np.flatnonzero(values == label)
        count = min(max(int(share * len(members) + 0.5), 1), len(members) - 1)
        held_out[generator.permutation(members)[:count]] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))
