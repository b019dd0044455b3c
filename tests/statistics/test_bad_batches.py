"""What cannot be estimated from: each case is told, and leaves the network as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from whole_state import FrozenBatchNorm2d, draw, same_state, small_network, state_of

import normwright as nw
from normwright.errors import DataError, OptionError, ShapeError


def raises(network, batches, error, match, **options):
    """The error, and a network that is the same to the bit."""
    before = state_of(network)
    with pytest.raises(error, match=match) as raised:
        nw.recalibrate(network, batches, **options)
    assert same_state(before, state_of(network))
    return raised.value


IMAGES = (3, 9, 9)


def test_layers_are_names_and_no_text():
    """Of a text each letter was a name: "12" chose the layers 1, 2 and 12."""
    network = nn.Sequential(*[nn.BatchNorm1d(3) for _ in range(13)])
    batches = [torch.randn(4, 3)]
    raises(
        network,
        batches,
        OptionError,
        r"layers= must be names .* is the text '12': write \['12'\]",
        layers="12",
    )
    raises(network, batches, OptionError, r"layers= must be names .* but is 12", layers=12)
    with pytest.raises(OptionError, match="layers= must be names"):
        nw.adapt(network, batches, layers="1")
    with pytest.raises(OptionError, match="layers= must be names"):
        nw.AdaptedStream(network, layers=1)


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_loader(training):
    raises(small_network().train(training), [], DataError, "at least one sample.*none came")


def test_a_loader_that_raises_half_way():
    def loader():
        yield draw(4, *IMAGES)
        raise OSError("the disk is gone")

    raises(small_network().train(), loader(), OSError, "the disk is gone")


def test_a_network_that_raises_half_way():
    """PEERS: momenta, modes and hooks are not restored after an exception."""
    network = small_network().train()
    network[4].momentum = None
    network[1].register_forward_hook(lambda *_: None)
    raises(network, [draw(4, *IMAGES), draw(4, 5, 9, 9)], RuntimeError, "channels")


def test_a_buffer_that_forward_moves_comes_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(3))

        def forward(self, x):
            self.calls += 1
            self.last = x.mean(0)
            return self.norm(x)

    network = Counting().eval()
    last = network.last
    nw.recalibrate(network, [draw(4, 3)])
    assert float(network.calls) == 0
    assert network.last is last
    assert torch.equal(last, torch.zeros(3))
    raises(network, [draw(4, 3), torch.full((4, 3), torch.nan)], DataError, "NaN")


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("verb", ["recalibrate", "adapt"])
def test_other_channels_than_a_layer_has(verb, channels):
    network = nn.Sequential(nn.BatchNorm2d(channels)).eval()
    before = state_of(network)
    with pytest.raises(
        ShapeError, match=rf"layer '0' .* given \(N, {channels}, ...\),.* given \(4, 5, 9, 9\)"
    ):
        getattr(nw, verb)(network, [draw(4, channels, 9, 9), draw(4, 5, 9, 9)])
    assert same_state(before, state_of(network))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)], ids=str)
def test_a_batch_of_one(shape):
    network = nn.Sequential(nn.BatchNorm1d(3)).eval()
    more = draw(4, *shape[1:])
    message = (
        r"layer '0' \(BatchNorm1d\) must be given more than 1 value per channel.*batch 2.*drop_last=True"
    )
    raises(network, [more, draw(*shape)], ShapeError, message)


def test_a_batch_of_one_image_is_enough():
    network = nn.BatchNorm2d(3).eval()
    assert nw.recalibrate(network, [draw(1, *IMAGES)]).layers[0].elements == 81


def test_space_of_one_under_instance_norm():
    network = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)).eval()
    raises(network, [draw(4, 3, 1, 1)], (ShapeError, ValueError), "more than 1")


def test_a_batch_of_none_is_passed_over():
    network = nn.BatchNorm1d(3).eval()
    x = draw(4, 3)
    handle = nw.recalibrate(network, [torch.empty(0, 3), x])
    assert handle.samples == 4
    torch.testing.assert_close(network.running_mean, x.mean(0))


def test_no_normaliser():
    raises(nn.Sequential(nn.Linear(3, 3)), [draw(4, 3)], OptionError, "it has none of those known here")


def test_normalisers_without_statistics():
    network = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.LayerNorm(3))
    raises(network, [draw(4, 3)], OptionError, r"0 \(BatchNorm1d\): keeps no statistics: track_running_stats")


def test_only_frozen_ones():
    raises(nn.Sequential(FrozenBatchNorm2d(3)), [draw(4, *IMAGES)], OptionError, "no normaliser|frozen")


def test_a_lazy_one_that_saw_nothing():
    network = nn.Sequential(nn.LazyBatchNorm1d())
    with pytest.raises(OptionError, match="layer '0' must know its channels"):
        nw.recalibrate(network, [draw(4, 3)])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("per_sample", [False, True], ids=["batch", "instance"])
def test_nan_is_named_by_layer_and_batch(value, per_sample):
    norm = (lambda c: nn.InstanceNorm2d(c, track_running_stats=True)) if per_sample else nn.BatchNorm2d
    network = small_network(norm).eval()
    batches = [draw(4, *IMAGES, seed=n) for n in range(5)]
    batches[2][1, 0, 4, 4] = value
    raises(
        network, batches, DataError, r"layer '1' .*in batch 3 \(counted from 1\) channels 0, 1, 2, 3 held NaN"
    )


@pytest.mark.parametrize("batch", [31, 32, 33, 40, 64])
def test_the_first_layer_is_named_however_many_batches_came_before(batch):
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    batches = [draw(6, 4, seed=number) for number in range(batch)]
    batches[-1][0, 2] = torch.nan
    raises(network, batches, DataError, rf"layer '0' .*in batch {batch} .* channel 2 held NaN")


def test_nan_that_arises_within_is_named_where_it_arises():
    network = small_network().eval()
    with torch.no_grad():
        network[3].weight[2, 0, 0, 0] = torch.nan
    raises(network, [draw(4, *IMAGES)] * 40, DataError, r"layer '4' .*in batch 1 .* channel 2 held NaN")


def test_statistics_that_do_not_fit():
    network = nn.BatchNorm1d(3).eval()
    raises(network, [draw(4, 3) * 1e30], DataError, r"must fit torch\.float32.*Scale")


def test_not_called():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            return x

    raises(Aside(), [draw(4, 3)], OptionError, "none of 'norm' was called")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"estimator": "totall"}, "did you mean 'total'"),
        ({"samples": 0}, "samples= must be at least 1"),
        ({"tolerance": 0.0}, "tolerance= must be a positive"),
        ({"tolerance": float("nan")}, "tolerance= must be a positive"),
    ],
    ids=str,
)
def test_options_out_of_range(options, match):
    raises(small_network(), [draw(4, *IMAGES)], OptionError, match, **options)


@pytest.mark.parametrize("batches", [draw(4, 3), 7], ids=["a tensor", "a number"])
def test_not_batches(batches):
    raises(nn.BatchNorm1d(3), batches, OptionError, "iterable of batches.*into a list")


def test_not_a_network():
    with pytest.raises(OptionError, match=r"must be a torch\.nn\.Module"):
        nw.recalibrate(nn.functional.relu, [draw(4, 3)])


@pytest.mark.parametrize("verb", [nw.recalibrate, nw.adapt])
def test_batches_without_a_sample_are_none(verb):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(DataError, match="must hold at least one sample"):
        verb(network, [torch.zeros(0, 3, 8, 8)])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return torch.vmap(self.norm)(x)


@pytest.mark.parametrize("act", [nw.recalibrate, nw.adapt])
def test_a_layer_that_vmap_gives_several_batches_as_one(act):
    network = Mapped().eval()
    before = state_of(network)
    with pytest.raises(OptionError, match=r"'norm' \(BatchNorm1d\) must be given one batch"):
        act(network, [draw(2, 8, 3)])
    assert same_state(before, state_of(network))
