"""Tables: CSV and Parquet files, and the data frames of any library, as columns."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from normwright.errors import DataError, MissingExtraError
from normwright.shift.columns import Array, Rows

TABLES = (".csv", ".parquet")

# What people write where a value is missing; an empty field is missing without a word.
_MISSING = ["NA", "N/A", "NaN", "nan", "null"]

# A longer first line is looked at no further.
_HEAD_BYTES = 1 << 20


def read_table(path: Path) -> Rows:
    """The columns of a CSV (UTF-8, with a head) or Parquet file.

    Raises:
        DataError: there is no such file, or it cannot be read as a table.
        MissingExtraError: polars is not installed.
    """
    try:
        polars = importlib.import_module("polars")
    except ImportError as fault:
        raise MissingExtraError(
            f"reading {path} needs polars, which cannot be imported ({fault}); install it with: "
            "pip install 'normwright[tables]'"
        ) from fault
    if not path.is_file():
        raise DataError(f"{path} must be a file, but there is none")
    is_csv = path.suffix == ".csv"
    try:
        if is_csv:
            _check_text(path)
        if not is_csv:
            frame = polars.read_parquet(path)
        else:
            # The kind of a column is that of all its values, not of the first hundred.
            frame = polars.read_csv(
                path, null_values=_MISSING, try_parse_dates=True, infer_schema_length=None
            )
    except polars.exceptions.NoDataError as fault:
        raise DataError(f"{path} must hold at least one row, but is empty") from fault
    except (polars.exceptions.PolarsError, OSError, UnicodeDecodeError) as fault:
        # What follows the first line tells a programmer which arguments of polars to set.
        reason = str(fault).partition("\n")[0].rstrip(".:")
        what_to_do = ": it must have a head, commas between values and as many in every row" * is_csv
        raise DataError(
            f"{path} must be a {path.suffix[1:]} table, but cannot be read as one ({reason}){what_to_do}"
        ) from fault
    return rows_of_frame(frame, str(path))


def _check_text(path: Path) -> None:
    """Says of a file that is no text what polars takes for a table without rows, or with odd names.

    Raises:
        DataError: it holds a zero byte, as UTF-16 and archives do, or its head is not UTF-8.
    """
    with path.open("rb") as file:
        head = file.readline(_HEAD_BYTES)
    try:
        readable = "\0" not in head.decode()
    except UnicodeDecodeError as fault:
        readable = fault.reason == "unexpected end of data" and len(head) == _HEAD_BYTES
    if not readable:
        raise DataError(
            f"{path} must be a csv table in UTF-8, but its first line is not such text: save it as UTF-8"
        )


def is_frame(value: Any) -> bool:
    """Whether it is a data frame of pandas, polars, pyarrow or another library that narwhals knows."""
    import narwhals

    try:
        known = narwhals.from_native(value, pass_through=True)
    except narwhals.exceptions.DuplicateError:  # a frame of pandas with two columns of one name
        return True
    return isinstance(known, narwhals.DataFrame | narwhals.LazyFrame)


def rows_of_frame(frame: Any, name: str) -> Rows:
    """The columns of a data frame; what is neither number, truth value, text nor time is left out.

    Raises:
        DataError: two columns have one name, or it has rows but no column that can be compared.
    """
    import narwhals

    try:
        table = narwhals.from_native(frame)
    except narwhals.exceptions.DuplicateError as fault:
        raise _same_names(name) from fault
    if isinstance(table, narwhals.LazyFrame):
        table = table.collect()
    columns, left_out = {}, []
    for series in table.iter_columns():
        column = _column(series)
        if str(series.name) in columns:  # as of 1 and '1'
            raise _same_names(name)
        if column is None:
            left_out.append((str(series.name), f"values of type {series.dtype} cannot be compared"))
        else:
            columns[str(series.name)] = column
    if left_out and not columns and len(table):
        reasons = "; ".join(f"{column!r}: {reason}" for column, reason in left_out[:8])
        raise DataError(f"{name} must have a column that can be compared, but each is left out: {reasons}")
    return Rows(name, columns, left_out=tuple(left_out))


def _same_names(name: str) -> DataError:
    return DataError(f"the columns of {name} must have names of their own, but two have one: rename one")


def _column(series: Any) -> Array | None:
    import narwhals

    kind = series.dtype
    if kind.is_numeric() or kind == narwhals.Boolean:
        return _floats(series)
    if isinstance(kind, narwhals.Datetime | narwhals.Date):
        return _counted(series.dt.timestamp("us"), "datetime64[us]")
    if isinstance(kind, narwhals.Duration):
        return _counted(series.dt.total_microseconds(), "timedelta64[us]")
    values = series.to_list()
    if isinstance(kind, narwhals.Categorical | narwhals.Enum):
        # pandas has categories of numbers, truth values, dates and intervals, too.
        pairs = zip(values, series.is_null().to_list(), strict=True)
        return np.array([None if missing else str(value) for value, missing in pairs], dtype=object)
    if isinstance(kind, narwhals.String) or all(value is None or isinstance(value, str) for value in values):
        return np.array([value if isinstance(value, str) else None for value in values], dtype=object)
    return None


def _floats(series: Any) -> Array:
    import narwhals

    numbers = series.cast(narwhals.Float64)
    # Each library has its own value for one that is missing, and some of them are no float.
    pairs = zip(numbers.to_list(), numbers.is_null().to_list(), strict=True)
    return np.array([np.nan if missing else value for value, missing in pairs], dtype=np.float64)


def _counted(microseconds: Any, dtype: str) -> Array:
    """Times from whole microseconds, which a float holds exactly for 285 years about 1970."""
    values = _floats(microseconds)
    missing = np.isnan(values)
    times = np.where(missing, 0, values).astype(np.int64).astype(dtype)
    times[missing] = "NaT"
    return times
