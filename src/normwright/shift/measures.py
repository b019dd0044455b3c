"""How well answers tell two sets apart, and how well that is known."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import rankdata

CONFIDENCE = 0.95

_Z = 1.959963984540054  # the normal distribution's quantile of 0.975
_DRAWS = 20_000


def mcc_of(found: float, kept: float) -> float:
    """Matthews' correlation of answers with sets that weigh the same, whatever their sizes.

        MCC = (t + u − 1) / √(1 − (t − u)²)

    which is the usual MCC with each row weighted by one over the size of its set.

    Args:
        found: t, the share of the current set that was taken for it.
        kept: u, the share of the reference that was taken for it.
    Example:
        >>> mcc_of(0.9, 0.9), mcc_of(1.0, 0.0)
        (0.8, 0.0)
    """
    spread = 1 - (found - kept) ** 2
    return (found + kept - 1) / math.sqrt(spread) if spread > 0 else 0.0


def mcc_interval(
    found: float, kept: float, current: int, reference: int, generator: np.random.Generator
) -> tuple[float, float]:
    """The 95 % interval of an MCC: quantiles over draws of both shares from Jeffreys' posteriors.

    Each set counts as half its size. Answers out of fold are not independent: each row is asked about once
    and is taught from in the other folds. For scores linear in the rows and sets without a difference, the
    variance over folds is double that of independent answers, whatever the number of folds.
    """
    shares = [
        generator.beta(share * size / 2 + 0.5, (1 - share) * size / 2 + 0.5, _DRAWS)
        for share, size in ((found, current), (kept, reference))
    ]
    spread = np.sqrt(np.maximum(1 - (shares[0] - shares[1]) ** 2, 1e-300))
    low, high = np.quantile(
        (shares[0] + shares[1] - 1) / spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    )
    return float(low), float(high)


def auc_of(scores: npt.NDArray[np.float64], current: npt.NDArray[np.bool_]) -> float:
    """The share of pairs, one row of each set, in which the current row scores higher; ties count half."""
    positives, negatives = int(current.sum()), int((~current).sum())
    above = rankdata(scores)[current].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def auc_fall(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], current: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """How much lower the AUC of other scores of the same rows is, and the variance of that over the rows.

        fall = mean over current rows of d = mean over reference rows of d,   variance = s²_c/m + s²_r/n

    d is how much smaller a row's share of rightly ranked rows of the other set became. For fixed scores.

    References:
        DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837-845.
    """
    first, second = (_rightly_ranked(scores, current) for scores in (before, after))
    changes = [one - other for one, other in zip(first, second, strict=True)]
    variance = sum(float(change.var(ddof=1)) / len(change) for change in changes if len(change) > 1)
    return float(changes[0].mean()), variance


def _rightly_ranked(
    scores: npt.NDArray[np.float64], current: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of each current row, then of each reference row, the share of the other set's that it ranks rightly."""
    among_all = rankdata(scores)
    above = among_all[current] - rankdata(scores[current])
    below = among_all[~current] - rankdata(scores[~current])
    positives, negatives = len(above), len(below)
    return above / negatives, 1 - below / positives


def auc_interval(auc: float, current: int, reference: int) -> tuple[float, float]:
    """The 95 % interval of an AUC: Newcombe's score interval, which stays one where the AUC is 0 or 1.

    Each set counts as half its size; see `mcc_interval`.

    References:
        Hanley & McNeil 1982, Radiology 143:29-36.
        Newcombe 2006, Statistics in Medicine 25:559-573, method 5.
    """
    ones, others = current / 2, reference / 2
    more = (ones + others) / 2 - 1

    def excess(true: float) -> float:
        terms = 1 + more * (1 - true) / (2 - true) + more * true / (1 + true)
        return (auc - true) ** 2 - _Z**2 * true * (1 - true) * terms / (ones * others)

    # At 0 and 1 themselves an AUC of 0 or 1 is a root, too, which is not the one meant.
    low = brentq(excess, 0, min(auc, 1 - 1e-9)) if auc > 0 else 0.0
    high = brentq(excess, max(auc, 1e-9), 1) if auc < 1 else 1.0
    return float(low), float(high)
