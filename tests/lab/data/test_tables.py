"""Data frames of any library become the same columns."""

from __future__ import annotations

import datetime

import numpy as np
import pandas
import polars
import pytest

from normwright.lab.data.tables import is_frame, read_table, rows_of_frame

NOON = datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.timezone.utc)
WANTED = {
    "whole": np.array([1.0, np.nan]),
    "truth": np.array([1.0, 0.0]),
    "text": np.array(["a", None], dtype=object),
    "category": np.array(["b", "a"], dtype=object),
    "time": np.array(["2020-01-01T12", "NaT"], dtype="datetime64[us]"),
    "span": np.array([86_400_000_000, "NaT"], dtype="timedelta64[us]"),
}
VALUES = {"truth": [True, False], "text": ["a", None], "nested": [[1], [2]]}
FRAMES = {
    "polars": polars.DataFrame(
        {
            "whole": [1, None],
            **VALUES,
            "category": polars.Series(["b", "a"]).cast(polars.Categorical),
            "time": [NOON, None],
            "span": [datetime.timedelta(1), None],
        }
    ),
    "pandas": pandas.DataFrame(
        {
            "whole": pandas.array([1, None], dtype="Int64"),
            **VALUES,
            "category": pandas.Categorical(["b", "a"]),
            "time": pandas.to_datetime([NOON, None], utc=True),
            "span": pandas.to_timedelta([datetime.timedelta(1), None]),
        }
    ),
}


@pytest.mark.parametrize("library", FRAMES)
def test_columns(library):
    rows = rows_of_frame(FRAMES[library], library)
    assert rows.columns.keys() == WANTED.keys()
    for name, values in WANTED.items():
        assert rows.columns[name].dtype == values.dtype, name
        np.testing.assert_array_equal(rows.columns[name], values)
    assert [name for name, _ in rows.left_out] == ["nested"]


def test_what_is_a_frame():
    assert is_frame(FRAMES["pandas"])
    assert is_frame(FRAMES["polars"].lazy())
    assert not any(map(is_frame, (np.zeros(3), [1], "a.csv", None)))


def test_a_column_is_of_the_kind_of_all_its_values(tmp_path):
    """The first hundred rows alone would say a whole number, and the words for missing a text."""
    path = tmp_path / "a.csv"
    path.write_text("x,y\n" + "1,1\n" * 500 + "2.5,NA\n,u\n")
    rows = read_table(path)
    assert rows.columns["x"][-2:].tolist()[0] == 2.5
    assert np.isnan(rows.columns["x"][-1])
    assert rows.columns["y"][-2:].tolist() == [None, "u"]
