"""Two sets of columns become one table of codes, or an error that names what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from tables import normal, rows, text

from normwright.errors import DataError
from normwright.shift.columns import BINS, coded


def both(**columns):
    """The same columns in two sets, halves of each."""
    halves = [{key: np.array_split(np.asarray(v), 2)[half] for key, v in columns.items()} for half in (0, 1)]
    return rows("a", **halves[0]), rows("b", **halves[1])


def test_numbers_keep_their_order_and_nothing_else():
    values = np.random.default_rng(0).normal(size=1000)
    one, other = coded(*both(x=values)), coded(*both(x=np.exp(values)))
    assert np.array_equal(one.codes, other.codes)
    assert len(np.unique(one.codes)) == BINS
    order = np.argsort(values)
    assert (np.diff(one.codes[order, 0]) >= 0).all()


def test_few_values_keep_a_code_each():
    data = coded(*both(x=[3.0, 1.0, 2.0, 1.0]))
    assert data.codes[:, 0].tolist() == [2, 0, 1, 0]


def test_missing_stays_missing_and_infinities_are_ends():
    data = coded(*both(x=[np.nan, -np.inf, 0.0, np.inf, 1.0, np.nan]))
    assert np.array_equal(data.codes[:, 0], [np.nan, 0, 1, 3, 2, np.nan], equal_nan=True)
    assert data.notes == ("'x' holds 2 infinities, taken as beyond its other values.",)


def test_text_is_categories_and_missing_text_missing():
    data = coded(*both(x=text("b", None, "a", "b"), y=[1.0, 2.0, 3.0, 4.0]))
    assert np.array_equal(data.codes[:, 0], [1, np.nan, 0, 1], equal_nan=True)
    assert data.categories.tolist() == [True, False]


def test_text_of_too_many_values_is_left_out_and_says_why():
    names = text(*(f"n{place}" for place in range(BINS + 1)))
    data = coded(*both(x=names, y=np.arange(BINS + 1) % 3))
    assert data.left_out == (
        ("x", f"text of {BINS + 1} values, more than the {BINS} that serve as categories"),
    )
    assert data.names == ("y",)


def test_constant_columns_are_left_out_by_name():
    data = coded(*both(x=[1.0] * 4, y=[1.0, 2.0, 3.0, 4.0], z=[np.nan] * 4, w=text("a", "a", "a", "a")))
    assert data.left_out == (("x", "constant"), ("z", "every value is missing"), ("w", "constant"))


def test_a_constant_that_differs_between_the_sets_is_kept():
    assert coded(rows("a", x=[1.0, 1.0]), rows("b", x=[2.0, 2.0])).codes[:, 0].tolist() == [0, 0, 1, 1]


def test_a_value_or_none_is_no_constant():
    data = coded(*both(x=[1.0, np.nan, 1.0, np.nan]))
    assert np.array_equal(data.codes[:, 0], [0, np.nan, 0, np.nan], equal_nan=True)


def test_dates_are_ordered():
    days = np.array(["2020-01-03", "2020-01-01", "NaT", "2020-01-02"], dtype="datetime64[us]")
    data = coded(*both(x=days))
    assert np.array_equal(data.codes[:, 0], [2, 0, np.nan, 1], equal_nan=True)


def test_a_column_of_missing_values_goes_with_any_kind():
    empty = text(None, None)
    assert coded(rows("a", x=empty), rows("b", x=[1.0, 2.0])).names == ("x",)
    assert coded(rows("a", x=[np.nan, np.nan]), rows("b", x=text("u", "v"))).categories.all()


def test_columns_are_matched_by_name():
    data = coded(rows("a", x=[1.0, 2.0], y=[0.0, 5.0]), rows("b", y=[0.0, 5.0], x=[1.0, 2.0]))
    assert data.codes[:2].tolist() == data.codes[2:].tolist()


BAD = {
    "no rows": (rows("a", x=[]), rows("b", x=[1.0]), "a must hold at least one row, but is empty"),
    "no columns": (rows("a"), rows("b", x=[1.0]), "a must hold at least one row"),
    "columns": (
        rows("a", x=[1.0], age=[2.0]),
        rows("b", x=[1.0], height=[2.0]),
        "a lacks 'height' and b lacks 'age'",
    ),
    "kinds": (
        rows("a", x=[1.0], y=[1.0]),
        rows("b", x=text("u"), y=[1.0]),
        "'x' is a number in a and text in b",
    ),
    "dates": (
        rows("a", x=np.array(["2020-01-01"], dtype="datetime64[us]")),
        rows("b", x=[1.0]),
        "'x' is a date in a and a number in b",
    ),
    "shapes": (rows("a", (2, 2), x=[1.0]), rows("b", (3, 3), x=[1.0]), "a has (2, 2) and b (3, 3)"),
    "nothing varies": (
        rows("a", x=[1.0], y=[2.0]),
        rows("b", x=[1.0], y=[2.0]),
        "'x': constant; 'y': constant",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compared_is_named(case):
    *sets, words = BAD[case]
    with pytest.raises(DataError) as error:
        coded(*sets)
    assert words in str(error.value)


def test_columns_of_another_kind_stay_left_out():
    data = coded(rows("a", left_out=(("z", "values of type List cannot be compared"),), x=[1.0, 2.0]),
                 rows("b", x=[1.0, 2.0]))  # fmt: skip
    assert data.left_out == (("z", "values of type List cannot be compared"),)


def test_a_row_number_is_told_of():
    numbers, values = np.arange(6), [3.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    data = coded(*both(i=numbers, x=values))
    assert len(data.notes) == 1
    assert data.notes[0].startswith("'i' rises by whole numbers from row to row")
    assert not coded(*both(i=numbers[::-1].copy(), x=values)).notes
    assert not coded(*both(i=numbers + 0.5, x=values)).notes


def test_keys_are_equal_for_equal_rows_only():
    one, other = normal(500, seed=0), normal(500, seed=1)
    keys = coded(one, other).keys
    assert len(np.unique(keys)) == 1000
    assert np.array_equal(*np.split(coded(one, one).keys, 2))
    zeros = coded(rows("a", x=[0.0, np.nan, 1.0]), rows("b", x=[-0.0, -np.nan, 1.0])).keys
    assert zeros[:3].tolist() == zeros[3:].tolist()
