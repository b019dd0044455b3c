"""The classifier that is asked to tell two sets apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier

from normwright.shift.columns import BINS

_TREES = 60
_LEAVES = 15

# Beyond this ratio of their sizes, weights alone do not make up for it: a few heavy rows are learned by
# heart, and almost every other row is then taken for one of the larger set.
_RATIO = 2
_BAGS = 4


class Classifier:
    """Gradient-boosted trees to which both sets weigh the same, however unequal their sizes.

    Where one set is more than twice the other, several are taught, each from all of the smaller set and as
    many rows of the larger one, no row twice; their log-odds are averaged.

    Args:
        codes: (N, F), NaN where missing.
        current: (N,), whether a row is of the current set; both must occur.
        categories: (F,), whether a column's codes have no order.
        seed: of the trees and the shares.
    """

    def __init__(
        self,
        codes: npt.NDArray[np.float32],
        current: npt.NDArray[np.bool_],
        categories: npt.NDArray[np.bool_],
        seed: int,
    ) -> None:
        self._categories = categories if categories.any() else None
        self._seed = seed
        self._parts = [self._fitted(codes[rows], current[rows]) for rows in _even(current, seed)]

    def scores(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(N,), the log-odds that a row is of the current set; above 0 is the answer that it is."""
        total: npt.NDArray[np.float64] = sum(part.decision_function(codes) for part in self._parts)
        return total / len(self._parts)

    def _fitted(self, codes: npt.NDArray[Any], current: npt.NDArray[Any]) -> HistGradientBoostingClassifier:
        smaller = int(min(current.sum(), (~current).sum()))
        return HistGradientBoostingClassifier(
            max_iter=_TREES,
            max_leaf_nodes=_LEAVES,
            min_samples_leaf=min(20, max(1, smaller // 5)),
            max_bins=BINS,
            categorical_features=self._categories,
            class_weight="balanced",
            early_stopping=False,
            random_state=self._seed,
        ).fit(codes, current)


def _even(current: npt.NDArray[np.bool_], seed: int) -> list[npt.NDArray[np.int64]]:
    """The rows that each classifier is taught from."""
    smaller, larger = sorted((np.flatnonzero(current), np.flatnonzero(~current)), key=len)
    if len(larger) <= _RATIO * len(smaller):
        return [np.arange(len(current))]
    shuffled = np.random.default_rng(seed).permutation(larger)
    bags = min(_BAGS, len(larger) // len(smaller))
    return [np.concatenate([smaller, shuffled[bag::bags][: len(smaller)]]) for bag in range(bags)]
