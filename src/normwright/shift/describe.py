"""How a column is distributed in each set, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from normwright.shift.columns import Array, Rows, alike, as_float


def described(names: Sequence[str], reference: Rows, current: Rows) -> tuple[str, str]:
    """The columns in the reference, and in the current set; those of each kind together.

    Numbers: the mean over rows and columns ± the deviation; durations likewise, in seconds. Dates: the first
    and the last. Text: the value whose share differs most. In all, the share that is missing, where any is.
    """
    kinds: dict[str, list[tuple[str, Array, Array]]] = {}
    for name in names:
        first, second = alike(reference.columns[name], current.columns[name])
        kinds.setdefault(_KINDS.get(first.dtype.kind, "number"), []).append((name, first, second))
    said = [_of_kind(kind, columns) for kind, columns in kinds.items()]
    return "; ".join(one for one, _ in said), "; ".join(other for _, other in said)


_KINDS = {"O": "text", "M": "date", "m": "duration"}


def _of_kind(kind: str, columns: list[tuple[str, Array, Array]]) -> tuple[str, str]:
    if kind == "text":
        return _texts(columns)
    say = _dates if kind == "date" else _numbers
    return say([first for _, first, _ in columns]), say([second for _, _, second in columns])


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


def _dates(columns: list[Array]) -> str:
    column = np.concatenate(columns)
    present = column[~np.isnat(column)]
    said = (
        f"{present.min().astype('M8[D]')} to {present.max().astype('M8[D]')}" if len(present) else "no date"
    )
    return said + _missing(len(column) - len(present), len(column))


def _texts(columns: list[tuple[str, Array, Array]]) -> tuple[str, str]:
    name, shares, telling = max(map(_most_apart, columns), key=lambda found: _apart(found[1], found[2]))
    lead = f"{name} " * (len(columns) > 1)
    one, other = (
        f"{lead}{telling!r} {share[telling] / size:.1%}" + _missing(size - share.total(), size)
        for share, size in shares
    )
    return one, other


_Shares = list[tuple[Counter[str], int]]


def _most_apart(column: tuple[str, Array, Array]) -> tuple[str, _Shares, str]:
    """The column, how often each value occurs in the sets, of these sizes, and the one that tells most."""
    name, *sets = column
    shares = [(Counter(str(value) for value in values if value is not None), len(values)) for values in sets]
    values = sorted(shares[0][0].keys() | shares[1][0].keys())
    return name, shares, max(values, key=lambda value: _apart(shares, value))


def _apart(shares: _Shares, value: str) -> float:
    (first, size), (second, other) = shares
    return abs(first[value] / size - second[value] / other)


def _missing(count: int, of: int) -> str:
    return f", {count / of:.1%} missing" if count else ""
