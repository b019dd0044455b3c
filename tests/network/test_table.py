"""A table on paper."""

from __future__ import annotations

from normwright.network.table import Table, aligned


def test_cells_stand_below_each_other_and_empty_columns_go():
    table = Table(
        "2 done.", ("layer", "empty", "change"), (("a.long.name", "", "1"), ("b", "", "")), ("That is all.",)
    )
    assert str(table).split("\n") == ["2 done.", "layer        change", "a.long.name  1", "b", "That is all."]


def test_nothing_below_the_heads_is_nothing():
    assert aligned((("layer", "change"),), heads=1) == []
    assert str(Table("Nothing to do.", ("layer",), ())) == "Nothing to do."
