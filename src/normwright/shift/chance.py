"""How likely chance alone would rank two sets as far apart as a classifier did."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, rankdata

PERMUTATIONS = 999

_AT_A_TIME = 64


def permutation_p(
    scores: npt.NDArray[np.float64], current: npt.NDArray[np.bool_], generator: np.random.Generator
) -> float:
    """The share of orders of the labels under which the current rows rank as high as they do, or higher.

        p = (1 + #{permutations whose sum of ranks ≥ the observed}) / (1 + permutations)

    Exact where the scores do not depend on these labels: for rows that the classifier was not taught from.

    Args:
        scores: (N,), the higher, the more like the current set.
        current: (N,), whether a row is of the current set.
    Example:
        >>> labels = np.arange(40) >= 20
        >>> permutation_p(np.arange(40.0), labels, np.random.default_rng(0))
        0.001
    """
    ranks = rankdata(scores)
    positives, total = int(current.sum()), len(current)
    observed = ranks[current].sum()
    # Ranks are halves of whole numbers: their sums are exact, and equal ones compare as equal.
    fewer, sign = (positives, 1) if positives <= total - positives else (total - positives, -1)
    reached = 0
    for begin in range(0, PERMUTATIONS, _AT_A_TIME):
        rows = min(_AT_A_TIME, PERMUTATIONS - begin)
        drawn = generator.permuted(np.broadcast_to(ranks, (rows, total)), axis=1)[:, :fewer].sum(1)
        sums = drawn if sign > 0 else ranks.sum() - drawn
        reached += int((sums >= observed).sum())
    return (1 + reached) / (1 + PERMUTATIONS)


def joined_p(p_values: list[float]) -> float:
    """One p-value from several, by Fisher's rule.

        −2·Σ ln p  is at most χ² with 2 degrees of freedom for each

    It holds where each p-value is valid given all that came before it; they need not be independent.

    References:
        Fisher 1932, Statistical Methods for Research Workers, 4th edition, section 21.1.
    Example:
        >>> round(joined_p([0.05, 0.05]), 4)
        0.0175
    """
    if not p_values:
        return 1.0
    return float(chi2.sf(-2 * np.log(p_values).sum(), 2 * len(p_values)))
