"""The groups family, cut in every way: whole groups, and pieces that one program or many put together."""

import pytest
from cases import Call, case_of
from test_cuts import OPTIONS, assert_right

from normwright.backends.triton import group_columns, group_runs
from normwright.backends.triton.groups_settings import GroupColumns, GroupPieces, GroupTile

# A space of 64 or more, and channels that make several blocks.
LONG, WIDE = (3, 4, 9, 8), (2, 32, 4, 9)
LAYOUTS = {LONG: "contiguous", WIDE: "channels-last"}
CUTS = {
    "whole groups": (LONG, GroupTile(1, 2, 128, 1)),
    "pieces, by one program": (LONG, GroupPieces(32, 2, 1, 32, 1, whole=True)),
    "pieces, by many": (LONG, GroupPieces(32, 2, 1, 32, 1, whole=False)),
    "pieces, many planes to a tile": (LONG, GroupPieces(32, 1, 2, 32, 1, whole=False)),
    "blocks of a group, by one program": (WIDE, GroupColumns(16, 8, 2, 1, whole=True)),
    "blocks of a group, pieces": (WIDE, GroupColumns(16, 8, 2, 1, whole=False)),
    "blocks of half a group": (WIDE, GroupColumns(8, 16, 1, 1, whole=False)),
    "blocks that groups straddle": (WIDE, GroupColumns(24, 32, 1, 1, whole=False)),
    "one block": (WIDE, GroupColumns(32, 16, 1, 1, whole=False)),
    "one block, all tiles full": (WIDE, GroupColumns(32, 4, 3, 1, whole=False)),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: str(options["activation"]))
@pytest.mark.parametrize("kind", ["group", "instance", "response"])
def test_groups(kind, options, cut, monkeypatch):
    shape, tile = CUTS[cut]
    taken = []

    def take(*_, **__):
        taken.append(tile)
        return tile

    monkeypatch.setattr(group_columns, "group_columns", take)
    monkeypatch.setattr(group_runs, "group_tile", take)
    assert_right(Call(case_of(kind, shape, layout=LAYOUTS[shape], **options)))
    assert len(taken) == 2
