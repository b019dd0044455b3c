"""Two sets of rows, brought to one table of codes that a classifier can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normwright.errors import DataError

BINS = 63
"""The most codes of a column: quantiles of a number, or values of a text."""

Array = npt.NDArray[Any]

_KINDS = {
    "b": "a number",
    "i": "a number",
    "u": "a number",
    "f": "a number",
    "M": "a date",
    "m": "a duration",
}


@dataclass(frozen=True, eq=False)
class Rows:
    """One set: columns of equal length, by name.

    Args:
        name: of the set, for messages.
        columns: each (N,), of numbers, truth values, dates, durations, or objects: str, or None for missing.
        shape: of a sample, where the columns are the elements of an array; () for a table.
        left_out: columns of a kind that cannot be compared, each with the reason.
    """

    name: str
    columns: Mapping[str, Array]
    shape: tuple[int, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def taken(self, places: Array) -> Rows:
        """The rows at these places."""
        taken = {name: values[places] for name, values in self.columns.items()}
        return Rows(self.name, taken, self.shape, self.left_out)


@dataclass(frozen=True, eq=False)
class Coded:
    """Both sets below each other.

    Args:
        codes: (N, F), float32; NaN where a value is missing. Only the order of numbers is kept.
        names: of the F columns.
        categories: (F,), whether a column's codes have no order.
        current: (N,), whether a row is of the current set.
        keys: (N,), uint64; equal for equal rows.
        left_out: columns that no classifier sees, each with the reason.
        notes: what the user should know of the columns.
    """

    codes: npt.NDArray[np.float32]
    names: tuple[str, ...]
    categories: npt.NDArray[np.bool_]
    current: npt.NDArray[np.bool_]
    keys: npt.NDArray[np.uint64]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def coded(reference: Rows, current: Rows) -> Coded:
    """Both sets as codes.

    A number becomes its place among at most `BINS` quantiles of both sets together, so that infinities are
    ends like any other; a text, the place of its value. A missing value stays one, or is the second text of
    a column that holds a single one. What does not vary, and texts of too many values, are left out.

    Raises:
        DataError: a set is empty, the columns differ in name or kind, or none is left.
    """
    _check(reference, current)
    count = len(reference) + len(current)
    keys = np.zeros(count, dtype=np.uint64)
    kept: list[npt.NDArray[np.float32]] = []
    names, categories, notes = [], [], []
    left_out = list(dict([*reference.left_out, *current.left_out]).items())
    for name, first in reference.columns.items():
        second = current.columns[name]
        if not reference.shape and _is_row_number(first) and _is_row_number(second):
            notes.append(
                f"{name!r} rises by whole numbers from row to row, as a row number does: if it is one, leave "
                "it out, for it may tell the sets apart by itself."
            )
        values = _joined(first, second)
        keys = _mixed(keys, values)
        column, reason = _texts(values) if values.dtype == object else _numbers(values)
        if reason:
            left_out.append((name, reason))
            continue
        infinite = int(np.isinf(values).sum()) if values.dtype != object else 0
        if infinite:
            notes.append(f"{name!r} holds {infinite:,} infinities, taken as beyond its other values.")
        kept.append(column)
        names.append(name)
        categories.append(values.dtype == object)
    if not kept:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in left_out[:8])
        raise DataError(
            f"{reference.name} and {current.name} must have a column that varies, but each is left out: "
            f"{reasons}"
        )
    return Coded(
        np.stack(kept, axis=1),
        tuple(names),
        np.array(categories),
        np.arange(count) >= len(reference),
        keys,
        tuple(left_out),
        tuple(notes),
    )


def kind_of(values: Array) -> str:
    """What a column holds, in words; "" where every value is missing."""
    if values.dtype == object:
        return "text" if any(value is not None for value in values) else ""
    if values.dtype.kind in "mM" and np.isnat(values).all():
        return ""
    if values.dtype.kind == "f" and np.isnan(values).all():
        return ""
    return _KINDS[values.dtype.kind]


def _check(reference: Rows, current: Rows) -> None:
    for rows in (reference, current):
        if not len(rows):
            raise DataError(f"{rows.name} must hold at least one row, but is empty")
    if reference.shape != current.shape:
        raise DataError(
            f"both sets must have samples of one shape, but {reference.name} has "
            f"{reference.shape or 'columns'} and {current.name} {current.shape or 'columns'}"
        )
    unlike = [
        f"{name!r} of {rows.name}: {reason}"
        for rows, other in ((reference, current), (current, reference))
        for name, reason in rows.left_out
        if name in other.columns
    ]
    if unlike:
        raise DataError(
            "a column must be of one kind in both sets, but only one can be compared of "
            f"{'; '.join(unlike[:8])}: bring both to one kind, or leave them out"
        )
    missing = {
        rows.name: [name for name in other.columns if name not in rows.columns]
        for rows, other in ((reference, current), (current, reference))
    }
    if any(missing.values()):
        lacks = " and ".join(f"{where} lacks {_listed(names)}" for where, names in missing.items() if names)
        raise DataError(f"both sets must have the same columns, but {lacks}: leave out what only one has")
    differ = [
        f"{name!r} is {one} in {reference.name} and {other} in {current.name}"
        for name, first in reference.columns.items()
        if (one := kind_of(first)) != (other := kind_of(current.columns[name])) and one and other
    ]
    if differ:
        raise DataError(
            f"a column must be of one kind in both sets, but {'; '.join(differ[:8])}: bring both to one kind"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more


def alike(first: Array, second: Array) -> tuple[Array, Array]:
    """Both columns as one kind: one without a single value, which may have come as any, as the other's."""
    if not kind_of(first):
        return _missing(len(first), second.dtype), second
    return first, second if kind_of(second) else _missing(len(second), first.dtype)


def _missing(count: int, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "O":
        return np.full(count, None, dtype=object)
    return np.full(count, "NaT", dtype) if dtype.kind in "mM" else np.full(count, np.nan)


def _joined(first: Array, second: Array) -> Array:
    """Both columns in one, as float64, or as objects where it is text."""
    first, second = alike(first, second)
    if object in (first.dtype, second.dtype):
        return np.concatenate([first, second])
    return np.concatenate([as_float(first), as_float(second)])


def as_float(values: Array) -> npt.NDArray[np.float64]:
    """Numbers, truth values, dates or durations as float64; what is missing is NaN."""
    if values.dtype.kind in "mM":
        numbers = values.astype("int64").astype(np.float64)
        numbers[np.isnat(values)] = np.nan
        return numbers
    return values.astype(np.float64) + 0.0  # a zero has no sign here


def _numbers(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], str]:
    missing = np.isnan(values)
    present = values[~missing]
    distinct = np.unique(present)
    reason = _too_few(len(distinct), missing)
    if reason:
        return np.empty(0, np.float32), reason
    if len(distinct) > BINS:
        steps = np.arange(1, BINS) / BINS
        distinct = np.unique(np.quantile(present, steps, method="inverted_cdf"))
    codes = np.searchsorted(distinct, values).astype(np.float32)
    codes[missing] = np.nan
    return codes, ""


def _texts(values: Array) -> tuple[npt.NDArray[np.float32], str]:
    distinct = {value: place for place, value in enumerate(sorted({v for v in values if v is not None}))}
    missing = np.array([value is None for value in values])
    reason = _too_few(len(distinct), missing)
    if not reason and len(distinct) > BINS:
        reason = f"text of {len(distinct):,} values, more than the {BINS} that serve as categories"
    if reason:
        return np.empty(0, np.float32), reason
    # Trees part one category from others, but never from what is missing: beside a lone one that is another.
    gap = 1.0 if len(distinct) == 1 else np.nan
    return np.array([distinct.get(value, gap) for value in values], dtype=np.float32), ""


def _too_few(distinct: int, missing: Array) -> str:
    if distinct == 0:
        return "every value is missing"
    if distinct == 1 and not missing.any():
        return "constant"
    return ""


def _is_row_number(values: Array) -> bool:
    if len(values) < 3 or values.dtype.kind not in "iuf":
        return False
    numbers = values.astype(np.float64)
    return bool(np.isfinite(numbers).all() and (numbers % 1 == 0).all() and (np.diff(numbers) > 0).all())


def _mixed(keys: npt.NDArray[np.uint64], values: Array) -> npt.NDArray[np.uint64]:
    """The keys with one more column in them."""
    if values.dtype == object:
        bits = np.array([hash(value) & 0xFFFF_FFFF_FFFF_FFFF for value in values], dtype=np.uint64)
    else:
        plain = values.copy()
        plain[np.isnan(plain)] = np.nan  # one NaN of the many
        bits = plain.view(np.uint64)
    # Steele's and Vigna's mixing of 64 bits: multiply by an odd number, fold the upper half into the lower.
    mixed = (keys ^ bits) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
