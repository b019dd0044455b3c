"""Folding where it once failed, or changed what it should have left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from same import randomise
from test_fold import EXACT, Net, draw, folded
from torch import nn
from torch.nn import functional as F

import normwright as nw
from normwright.network.folding import fold as fold_module


@pytest.fixture(autouse=True)
def _no_long_timing(monkeypatch):
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)


def apart(network, other, *call):
    """The largest difference of two networks' outputs, relative to the largest output."""
    with torch.no_grad():
        expected, actual = network(*call), other(*call)
    return float((expected - actual).abs().max() / expected.abs().max())


# In place, all or nothing.


def test_a_fold_in_place_that_fails_leaves_the_network_as_it_was():
    network = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        nn.BatchNorm1d(3),
        nn.ReLU(),
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
    )
    randomise(network).eval()
    # Each element is the same number in memory: it cannot be written to, where its copy can.
    network[3].weight = nn.Parameter(draw(1).expand(4, 3))
    before, weight = copy.deepcopy(network.state_dict()), network[3].weight
    x = draw(5, 3)
    with torch.no_grad():
        expected = network(x)
    with pytest.raises(RuntimeError):
        nw.fold(network, x, inplace=True)
    assert isinstance(network[1], nn.BatchNorm1d)
    assert nn.utils.parametrize.is_parametrized(network[0], "weight")
    assert network[3].weight is weight
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    with torch.no_grad():
        assert torch.equal(network(x), expected)


def test_a_layer_made_in_inference_mode_is_folded_in_place():
    with torch.inference_mode():
        made = nn.Conv2d(3, 4, 1).double()
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), made, nn.BatchNorm2d(4))
    randomise(network[:2])
    randomise(network[3])
    network.eval()
    before, x = copy.deepcopy(network), draw(2, 3, 4, 4)
    nw.fold(network, x, inplace=True)
    assert isinstance(network[3], nn.Identity)
    assert apart(before, network, x) <= EXACT


# Parameters that are made.


@pytest.mark.parametrize("trained", [False, True])
def test_a_multiply_add_is_trained_if_the_normaliser_was(trained):
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU())
    network.requires_grad_(trained)
    result, _, _ = folded(network, draw(2, 3, 4, 4))
    assert {parameter.requires_grad for parameter in result[1].parameters()} == {trained}


def test_nothing_that_a_fold_makes_in_inference_mode_is_bound_to_it():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU()
    )
    randomise(network).eval()
    with torch.inference_mode():
        result = nw.fold(network, draw(2, 3, 4, 4))
    assert not [name for name, value in result.state_dict().items() if value.is_inference()]


# One channel, whose map may lie on any axis.


def test_one_channel_into_a_layer_after():
    def forward(self, x):
        return self.linear(self.norm(x).squeeze(1))

    network = Net(forward, norm=nn.BatchNorm2d(1), linear=nn.Linear(7, 2))
    assert folded(network, draw(3, 1, 6, 7))[1] == {"norm": ("after", ("linear",))}


def test_one_channel_into_a_layer_before():
    def forward(self, x):
        return self.norm(self.conv(x).squeeze(1).unsqueeze(1))

    network = Net(forward, conv=nn.Conv2d(3, 1, 3), norm=nn.BatchNorm2d(1))
    assert folded(network, draw(3, 3, 6, 7))[1] == {"norm": ("before", ("conv",))}


def test_one_channel_that_is_flattened():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(42, 2))
    assert folded(network, draw(3, 1, 6, 7))[1] == {"0": ("after", ("2",))}


# Tensors that several layers share.


@pytest.mark.parametrize("traced", [True, False])
def test_layers_of_one_weight_and_two_biases(traced):
    def forward(self, x):
        if not traced and float(x.sum()) > 1e9:
            return x
        return self.norm(self.one(x)) + self.norm(self.other(x.relu()))

    network = Net(forward, one=nn.Linear(3, 4), other=nn.Linear(3, 4), norm=nn.BatchNorm1d(4))
    network.other.weight = network.one.weight
    folded(network, draw(5, 3))


@pytest.mark.parametrize("traced", [True, False])
def test_layers_of_one_bias_and_two_weights(traced):
    def forward(self, x):
        if not traced and float(x.sum()) > 1e9:
            return x
        x = self.norm(x)
        return self.last_norm(self.last(self.one(x) + self.other(x)))

    network = Net(
        forward, one=nn.Linear(3, 4), other=nn.Linear(3, 4), norm=nn.BatchNorm1d(3),
        last=nn.Linear(4, 4), last_norm=nn.BatchNorm1d(4),
    )  # fmt: skip
    network.other.bias = network.one.bias
    _, places, report = folded(network, draw(5, 3))
    assert places == {"norm": ("multiply-add", ()), "last_norm": ("before", ("last",))}
    assert "bias" in report.normalisers[0].reason


# What is left alone.


class Functions(nn.Module):
    """An instance norm and two batch norms, by function."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)
        for place, channels in enumerate((4, 5)):
            self.register_buffer(f"mean{place}", draw(channels))
            self.register_buffer(f"running_var{place}", draw(channels).exp())

    def forward(self, x):
        x = F.instance_norm(x)
        x = F.relu(F.batch_norm(self.one(x), self.mean0, self.running_var0))
        return F.batch_norm(self.other(x), self.mean1, self.running_var1)


def test_an_instance_norm_is_no_batch_norm():
    _, _, report = folded(Functions(), draw(2, 3, 5, 5))
    assert [record.place for record in report.normalisers] == ["", "before", "before"]


def test_a_normaliser_whose_result_nobody_reads():
    def forward(self, x):
        if float(x.sum()) > 1e9:  # so that it is recorded
            return x
        self.norm(x)
        return self.last(x)

    network = Net(forward, norm=nn.BatchNorm2d(3), last=nn.Conv2d(3, 4, 1))
    _, places, report = folded(network, draw(2, 3, 5, 5))
    assert report.traced_by == "recording"
    assert places == {"norm": ("", ())}
    assert "nothing reads its result" in report.normalisers[0].reason


def test_a_network_that_is_a_normaliser_is_left_alone():
    result, places, report = folded(nn.BatchNorm2d(3), draw(2, 3, 5, 5))
    assert type(result) is nn.BatchNorm2d
    assert places == {"": ("", ())}
    assert "network itself" in report.normalisers[0].reason


def _reads_its_weight(self, x):
    return self.norm(self.layer(x.to(self.norm.weight.dtype)))


def _asks_for_its_statistics(self, x):
    y = self.norm(self.layer(x))
    return y if hasattr(self.norm, "running_mean") else y * 2


def _gives_a_mask(self, x):
    return self.norm(self.layer(x), None)


def _gives_it_by_name(self, x):
    return self.norm(x=self.layer(x))


class Masked(nn.BatchNorm1d):
    def forward(self, x, mask=None):
        return super().forward(x)


@pytest.mark.parametrize(
    "forward", [_reads_its_weight, _asks_for_its_statistics, _gives_a_mask, _gives_it_by_name]
)
def test_a_normaliser_that_is_used_in_other_ways_is_left_alone(forward):
    network = Net(
        forward,
        layer=nn.Linear(3, 4),
        norm=Masked(4),
    )
    network = nn.Sequential(network, nn.Linear(4, 2), nn.BatchNorm1d(2))
    _, places, report = folded(network, draw(5, 3))
    assert places == {"0.norm": ("", ()), "2": ("before", ("1",))}
    reason = report.normalisers[0].reason
    assert "from outside" in reason or "called with more than a tensor" in reason


def test_a_normaliser_that_is_asked_for_what_every_module_has():
    def forward(self, x):
        assert not self.norm.training
        return self.norm(input=self.layer(x))

    network = Net(forward, layer=nn.Linear(3, 4), norm=nn.BatchNorm1d(4))
    assert folded(network, draw(5, 3))[1] == {"norm": ("before", ("layer",))}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_weight_norm_whose_parts_are_read_is_kept(norm):
    def forward(self, x):
        if norm is nn.utils.weight_norm:
            direction = self.one.weight_v
        else:
            direction = self.one.parametrizations.weight.original1
        return self.last(self.one(x) + self.other(x)) + F.linear(x, direction)

    network = Net(
        forward, one=norm(nn.Linear(3, 4)), other=norm(nn.Linear(3, 4)),
        last=nn.BatchNorm1d(4),
    )  # fmt: skip
    result, _, report = folded(network, draw(5, 3))
    assert type(result.other) is nn.Linear
    assert "weight" not in dict(result.one.named_parameters(recurse=False))
    assert report.notes[0].startswith("Weight norm of one kept")


@pytest.mark.parametrize("both", [False, True])
def test_a_normaliser_called_without_gradients_is_left_alone_and_says_why(both):
    def forward(self, x):
        if not both:
            x = self.conv(x)
        with torch.no_grad():
            x = self.norm(self.conv(x) if both else x)
            if both:
                x = x.relu()
        return x.relu()

    network = Net(forward, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))
    _, places, report = folded(network, draw(2, 3, 5, 5))
    assert places == {"norm": ("", ())}
    assert "torch.no_grad()" in report.normalisers[0].reason


def test_a_tensor_that_is_made_empty_and_then_written_is_no_constant():
    """As SuperGlue's keypoints."""

    def forward(self, x):
        if float(x.sum()) > 1e9:  # so that it is recorded
            return x
        held = torch.zeros(x.shape, dtype=x.dtype)
        held[:, 1:] = x[:, 1:]
        return self.last(self.norm(held))

    network = Net(forward, norm=nn.BatchNorm1d(4), last=nn.Linear(4, 2))
    _, places, report = folded(network, draw(5, 4))
    assert report.traced_by == "recording"
    assert places == {"norm": ("after", ("last",))}
