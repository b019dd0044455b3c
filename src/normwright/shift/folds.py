"""Deals rows into folds, without a look at which set they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def dealt(keys: npt.NDArray[np.uint64], folds: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """The fold of each row, at random and nearly even.

    Equal rows stay together where there are fewer of them than folds. A copy in another fold would tell the
    classifier of the row that it is asked about, and wrongly so where the copy lies in the other set: on two
    sets of the same rows its answers would be worse than chance. Rows of which there are many copies, as in
    tables of a few categories, are dealt one by one, since their shares are all that can be learned.

    The set that a row is of plays no part, so that within a fold every order of the sets is as likely as any
    other where both come from one distribution.

    Args:
        keys: (N,), equal for equal rows.
        folds: how many.
    Returns:
        (N,), from 0 to folds − 1.
    Example:
        >>> keys = np.array([1, 1, 2, 3, 4, 5], dtype=np.uint64)
        >>> folds = dealt(keys, 3, np.random.default_rng(0))
        >>> bool(folds[0] == folds[1])
        True
    """
    _, first, group, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    alone = counts[group] >= folds
    unit = np.where(alone, np.arange(len(keys)), first[group])
    # Sorted by a random number of the unit: rows of one unit are neighbours.
    order = np.lexsort((unit, generator.permutation(len(keys))[unit]))
    begins = np.concatenate([[True], np.diff(unit[order]) != 0])
    place = np.arange(len(keys))
    start = np.maximum.accumulate(np.where(begins, place, 0))
    found = np.empty(len(keys), dtype=np.int64)
    found[order] = start * folds // len(keys)
    return found


def copies(keys: npt.NDArray[np.uint64], current: npt.NDArray[np.bool_], folds: int) -> int:
    """How many rows of the current set are in the reference, too, of those that `dealt` keeps together."""
    values, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    in_reference: npt.NDArray[Any] = np.bincount(group, weights=~current, minlength=len(values)) > 0
    return int((current & in_reference[group] & (counts[group] < folds)).sum())
