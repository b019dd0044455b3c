"""A copy of a network serves as the network does, wherever it was made, and is all of the dtype asked for."""

import threading

import pytest
import torch
from torch import nn

import normwright as nw
from normwright.errors import OptionError
from normwright.network import accelerate_with_report
from normwright.network.copying import copied, in_dtype
from normwright.shift.in_network import Shown, network_shift

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def small_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


VERBS = {
    "accelerate": nw.accelerate,
    "convert": lambda network: nw.convert(network, "group"),
    "convert with an example": lambda network: nw.convert(network, "layer", example=X),
    "calibrate": lambda network: nw.convert(network, "group", calibrate=[X]),
    "fold": lambda network: nw.fold(network, X),
    "freeze": nw.freeze,
    "unfreeze": nw.unfreeze,
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_made_in_inference_mode_can_be_trained(verb):
    network = small_network().eval()
    with torch.inference_mode():
        made = VERBS[verb](network)
    assert not any(tensor.is_inference() for tensor in (*made.parameters(), *made.buffers()))
    made.train()(X).sum().backward()
    assert made[0].weight.grad is not None


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_is_computed_is_copied(verb):
    """It is no leaf of the graph, which PyTorch does not copy."""
    network = small_network().eval()
    torch.nn.utils.weight_norm(network[0])
    assert not network[0].weight.is_leaf
    with torch.no_grad():
        expected = VERBS[verb](small_with(network))(X)
    made = VERBS[verb](network)
    with torch.no_grad():
        torch.testing.assert_close(made(X), expected, rtol=1e-5, atol=1e-6)


def shift_of_itself(network):
    shown = Shown("both", 40, lambda begin, end: X.repeat(10, 1, 1, 1)[begin:end], None)
    options = {"batch_size": 20, "level": 0.05, "seed": 0, "on_stage": lambda _: None}
    return network_shift(network, shown, shown, **options).layers


LOOKS = {
    "accelerate in place": lambda network: (
        accelerate_with_report(network, inplace=True)[1].normalisers[0].fused
    ),
    "diagnose": lambda network: nw.diagnose(network, [(X, X)], lambda y, _: y.mean(), rules=["batch_of_one"]),
    "shift_test": shift_of_itself,
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_network_with_a_weight_that_is_computed_is_looked_at(look):
    network = small_network().eval()
    torch.nn.utils.weight_norm(network[0])
    assert LOOKS[look](network)


def small_with(network):
    """One with the same numbers, whose weight is a parameter."""
    plain = small_network().eval()
    with torch.no_grad():
        plain[0].weight.copy_(network[0].weight)
        plain[0].bias.copy_(network[0].bias)
    return plain


def test_what_is_kept_beside_buffers_is_of_the_dtype_too():
    network = small_network()
    network.kept = {"bias": [torch.ones(1), torch.ones(1, dtype=torch.long)], "name": "one"}
    wide = in_dtype(network, torch.float64)
    assert [tensor.dtype for tensor in wide.kept["bias"]] == [torch.float64, torch.long]
    assert {tensor.dtype for tensor in wide.parameters()} == {torch.float64}
    assert network.kept["bias"][0].dtype == torch.float32


def test_parameters_stay_shared_and_hooks_stay():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    network[0].register_forward_hook(lambda *_: None)
    copy = copied(network)
    assert copy[1].weight is copy[0].weight
    assert copy[0].weight is not network[0].weight
    assert len(copy[0]._forward_hooks) == 1


class WithState(nn.Module):
    """Keeps what its calls computed, with gradients: in an attribute, in a list and in a buffer."""

    def __init__(self):
        super().__init__()
        self.layers = small_network()
        self.state = torch.zeros(4)
        self.met = []
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x):
        y = self.layers(x)
        self.state.detach_().mul_(0.5).add_(y.mean((0, 2, 3)))
        self.met[:] = [y]
        self.average = 0.9 * self.average + 0.1 * y.mean((0, 2, 3))
        return y + self.state.view(1, -1, 1, 1)


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_call_left_behind_is_not_shared_with_the_copy(verb):
    network = WithState().eval()
    network(X)
    kept = [network.state, network.met[0], network.average]
    before = [tensor.detach().clone() for tensor in kept]
    made = VERBS[verb](network)
    with torch.no_grad():
        made(X)
    now = [network.state, network.met[0], network.average]
    for tensor, same, value in zip(now, kept, before, strict=True):
        assert tensor is same
        assert torch.equal(tensor, value)


class Cache:
    """No container that PyTorch knows."""

    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("verb", VERBS)
def test_what_cannot_be_copied_is_named(verb):
    network = nn.Sequential(small_network(), nn.Flatten()).eval()
    network[1].cache = Cache(network(X))
    with pytest.raises(OptionError, match=r"'1\.cache' holds .* class Cache .*graph leaves.*: detach\(\)"):
        VERBS[verb](network)
    network[1].cache.value = network[1].cache.value.detach()
    VERBS[verb](network)


def test_what_cannot_be_copied_in_a_list_beside_the_modules():
    network = small_network()
    network.beside = [network[0], Cache(threading.Lock())]
    with pytest.raises(OptionError, match=r"'beside' holds .* class list .*cannot pickle"):
        copied(network)


def test_a_module_that_will_not_be_copied_says_so_itself():
    class Own(nn.Module):
        def __deepcopy__(self, memo):
            raise LookupError("not this one")

    with pytest.raises(LookupError, match="not this one"):
        copied(nn.Sequential(Own()))
