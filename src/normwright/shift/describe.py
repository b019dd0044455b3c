"""How a column is distributed in each set, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from normwright.shift.columns import Array, Rows, alike, as_float


def described(names: Sequence[str], reference: Rows, current: Rows) -> tuple[str, str]:
    """The columns in the reference, and in the current set.

    Numbers: the mean over rows and columns ± the deviation; durations likewise, in seconds. Text: the value
    whose share differs most. In all, the share that is missing, where any is.
    """
    pairs = [alike(reference.columns[name], current.columns[name]) for name in names]
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if first[0].dtype == object or second[0].dtype == object:
        return _texts(first[0], second[0])
    if first[0].dtype.kind == "M":
        return _date(first[0]), _date(second[0])
    return _numbers(first), _numbers(second)


def _numbers(columns: list[Array]) -> str:
    values = np.concatenate([as_float(column) for column in columns])
    seconds = columns[0].dtype.kind == "m"
    if seconds:
        values /= 1e6
    finite = values[np.isfinite(values)]
    said = "no finite value"
    if len(finite):
        # at most 1 in size, whose squares are numbers still
        unit = float(np.abs(finite).max()) or 1.0
        scaled = finite / unit
        said = f"{scaled.mean() * unit:.4g} ± {scaled.std() * unit:.3g}{' s' * seconds}"
    return said + _missing(int(np.isnan(values).sum()), len(values))


def _date(column: Array) -> str:
    present = column[~np.isnat(column)]
    said = (
        f"{present.min().astype('M8[D]')} to {present.max().astype('M8[D]')}" if len(present) else "no date"
    )
    return said + _missing(len(column) - len(present), len(column))


def _texts(first: Array, second: Array) -> tuple[str, str]:
    shares = [Counter(str(value) for value in column if value is not None) for column in (first, second)]
    sizes = len(first), len(second)

    def apart(value: str) -> float:
        return abs(shares[0][value] / sizes[0] - shares[1][value] / sizes[1])

    telling = max(sorted(shares[0].keys() | shares[1].keys()), key=apart)
    one, other = (
        f"{telling!r} {share[telling] / size:.1%}" + _missing(size - share.total(), size)
        for share, size in zip(shares, sizes, strict=True)
    )
    return one, other


def _missing(count: int, of: int) -> str:
    return f", {count / of:.1%} missing" if count else ""
