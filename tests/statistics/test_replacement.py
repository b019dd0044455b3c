"""What `undo` of `recalibrate` and `adapt` does where the network changed in between: it never loses that."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from whole_state import draw, same_state, small_network, state_of

import normwright as nw
from normwright.errors import OptionError

ACTS = {
    "recalibrate": lambda network: nw.recalibrate(network, [draw(4, 3, 9, 9)]),
    "adapt": lambda network: nw.adapt(network, [draw(4, 3, 9, 9)], source_weight=1),
}


@pytest.fixture(params=ACTS)
def act(request):
    return ACTS[request.param]


def trained_on(network):
    network.train()(draw(4, 3, 9, 9, seed=1))
    network.eval()


def one_channel(network):
    network[4].running_var[3] += 1


CHANGES = {"trained on": (trained_on, "'1', '4'"), "one channel": (one_channel, "of '4'")}


@pytest.mark.parametrize("change", CHANGES)
def test_statistics_that_were_changed_since_are_not_overwritten(act, change):
    changing, named = CHANGES[change]
    network = small_network().eval()
    handle = act(network)
    changing(network)
    before = state_of(network)
    with pytest.raises(OptionError, match=rf"{named} were changed since.*undo\(force=True\)"):
        handle.undo()
    assert same_state(before, state_of(network))


def test_they_are_overwritten_if_that_is_asked_for(act):
    network = small_network().eval()
    before = state_of(network)
    handle = act(network)
    one_channel(network)
    handle.undo(force=True)
    assert same_state(before, state_of(network))


def test_what_came_later_is_undone_first(act):
    network = small_network().eval()
    before = state_of(network)
    first, second = act(network), nw.recalibrate(network, [draw(4, 3, 9, 9, seed=2)])
    with pytest.raises(OptionError, match="undo what came later first"):
        first.undo()
    second.undo()
    first.undo()
    assert same_state(before, state_of(network))


def test_a_layer_that_is_gone_is_named(act):
    network = small_network().eval()
    handle = act(network)
    network[4] = nn.Identity()
    before = state_of(network)
    for force in (False, True):
        with pytest.raises(OptionError, match="'4' no longer did"):
            handle.undo(force=force)
    assert same_state(before, state_of(network))


def test_a_layer_of_other_channels_in_its_place_is_named_before_any_is_written(act):
    network = small_network().eval()
    handle = act(network)
    network[4] = nn.BatchNorm2d(network[4].num_features + 1)
    before = state_of(network)
    with pytest.raises(OptionError, match="'4' no longer did"):
        handle.undo(force=True)
    assert same_state(before, state_of(network))


def test_a_network_that_was_cast_is_undone_where_it_now_keeps_its_statistics(act):
    """Casting and moving to a device put new tensors into the network; the old ones are nobody's."""
    network = small_network().eval()
    expected = {name: value.half() for name, value in network.state_dict().items() if "running" in name}
    handle = act(network)
    network.half()
    handle.undo()
    for name, value in expected.items():
        assert torch.equal(network.state_dict()[name], value)


def test_statistics_that_were_not_a_number_come_back_twice():
    network = small_network().eval()
    network[4].running_mean.fill_(torch.nan)
    before = state_of(network)
    handle = nw.recalibrate(network, [draw(4, 3, 9, 9)])
    handle.undo()
    handle.undo()
    assert same_state(before, state_of(network))


def test_the_context_says_so_too():
    network = small_network().eval()
    with (
        pytest.raises(OptionError, match="'4' were changed since"),
        nw.adapt(network, [draw(4, 3, 9, 9)], source_weight=1),
    ):
        one_channel(network)


def test_a_network_that_was_made_in_inference_mode(act):
    """Its buffers may be written to in that mode alone, and one that is refused was changed all the same."""
    with torch.inference_mode():
        network = small_network().eval()
    assert network[1].running_mean.is_inference()
    before = state_of(network)
    handle = act(network)
    assert not same_state(before, state_of(network))
    handle.undo()
    assert same_state(before, state_of(network))


def test_a_network_on_meta(act):
    with pytest.raises(OptionError, match="on the device meta"):
        act(small_network().eval().to("meta"))
