"""The channels family, cut in every way: a channel in chunks, channels quickest, short spaces whole."""

import pytest
from cases import Call, case_of
from test_cuts import OPTIONS, assert_right

from normwright.backends.triton import channels_view
from normwright.backends.triton.channels_settings import ChannelsTile

LONG, SHORT = (3, 4, 9, 8), (2, 6, 5, 7)
CUTS = {
    "one channel, whole": (LONG, "contiguous", ChannelsTile(1, 4, 128, 1)),
    "one channel, in chunks": (LONG, "contiguous", ChannelsTile(1, 2, 16, 3)),
    "one channel, more ranges than tiles": (LONG, "contiguous", ChannelsTile(1, 4, 128, 9)),
    "short spaces": (SHORT, "contiguous", ChannelsTile(8, 1, 512, 2)),
    "short spaces, one tile": (SHORT, "transposed", ChannelsTile(16, 2, 1024, 1)),
    "quickest": (SHORT, "channels-last", ChannelsTile(8, 4, 8, 5)),
    "quickest, large tiles": (LONG, "channels-last", ChannelsTile(8, 64, 8, 9)),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: str(options["activation"]))
@pytest.mark.parametrize("kind", ["batch", "batch-eval"])
def test_channels(kind, options, cut, monkeypatch):
    shape, layout, tile = CUTS[cut]
    taken = []
    monkeypatch.setattr(channels_view, "channels_tile", lambda *_, **__: taken.append(tile) or tile)
    assert_right(Call(case_of(kind, shape, layout=layout, **options)))
    assert len(taken) == 2


def test_a_tile_that_splits_a_channel_is_refused(monkeypatch):
    monkeypatch.setattr(channels_view, "channels_tile", lambda *_, **__: ChannelsTile(8, 2, 64, 1))
    with pytest.raises(Exception, match="whole channels"):
        assert_right(Call(case_of("batch", SHORT)))
