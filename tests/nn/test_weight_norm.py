"""Weight norm and weight standardisation on layers, beside `torch.nn.utils.parametrizations`."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tolerances import AGREEMENT, UNIT
from torch.nn.utils.parametrizations import weight_norm as theirs
from torch.nn.utils.parametrize import remove_parametrizations

from normwright import nn
from normwright.errors import DataError, OptionError, ShapeError

LAYERS = {
    "Linear": lambda: torch.nn.Linear(4, 3),
    "Conv1d": lambda: torch.nn.Conv1d(4, 3, 2),
    "Conv2d": lambda: torch.nn.Conv2d(4, 3, 3, bias=False),
    "ConvTranspose2d": lambda: torch.nn.ConvTranspose2d(4, 3, 3),
}
INPUTS = {"Linear": (16, 4), "Conv1d": (16, 4, 6)}
HALVES = [torch.float16, torch.bfloat16]


def input_of(name, dtype=torch.float32):
    shape = INPUTS.get(name, (16, 4, 5, 5))
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1).to(dtype)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dim", [0, 1, None])
def test_it_stands_where_pytorch_s_stood(name, dim):
    layer = LAYERS[name]()
    ours, model = nn.weight_norm(copy.deepcopy(layer), dim=dim), theirs(copy.deepcopy(layer), dim=dim)
    assert list(ours.state_dict()) == list(model.state_dict())
    assert [part.shape for part in ours.parameters()] == [part.shape for part in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.1)
    ours.load_state_dict(model.state_dict(), strict=True)
    x = input_of(name)
    results = [call(x) for call in (ours, model)]
    for y in results:
        y.square().mean().backward()
    gradients = [[parameter.grad for parameter in each.parameters()] for each in (ours, model)]
    for one, other in [results, *zip(*gradients, strict=True)]:
        scale = max(1.0, float(other.detach().abs().max()))
        assert float((one - other).detach().abs().max()) <= AGREEMENT * scale
    weight = ours.weight.detach().clone()
    remove_parametrizations(ours, "weight")
    assert type(ours) is type(layer)
    assert torch.equal(ours.weight, weight)


def test_checkpoints_with_the_old_names_are_read():
    layer = nn.weight_norm(torch.nn.Linear(4, 3))
    g, v = torch.rand(3, 1) + 1, torch.randn(3, 4)
    layer.load_state_dict({"weight_g": g, "weight_v": v, "bias": torch.zeros(3)}, strict=True)
    torch.testing.assert_close(layer.weight.norm(dim=1), g.squeeze(1))


@pytest.mark.parametrize("act", [nn.weight_norm, nn.weight_standardization])
def test_a_layer_that_was_parametrised_is_pickled_again(act):
    layer = remove_parametrizations(act(torch.nn.Linear(4, 3)), "weight")
    assert torch.equal(pickle.loads(pickle.dumps(layer)).weight, layer.weight)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_half_types_work(name, dtype):
    """PyTorch #107914, #114746."""
    layer = nn.weight_norm(LAYERS[name]().to(dtype))
    assert layer.weight.dtype == dtype
    layer(input_of(name, dtype)).float().square().mean().backward()
    for parameter in layer.parameters():
        assert parameter.grad.dtype == dtype
        assert torch.isfinite(parameter.grad).all()
    # A weight of 100 elements of 100 has a square that float16 cannot hold.
    wide = torch.nn.Linear(100, 2).to(dtype)
    torch.nn.init.constant_(wide.weight, 100.0)
    error = (nn.weight_norm(wide).weight.detach().float() - 100).abs().max()
    assert float(error) <= 100 * 2 * UNIT[dtype]  # of g's rounding and of w's


@pytest.mark.parametrize("act", [nn.weight_norm, nn.weight_standardization])
def test_a_copy_is_its_own(act):
    layer = act(torch.nn.Linear(4, 3))
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(torch.ones(2, 4)), layer(torch.ones(2, 4)))
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert not torch.equal(twin(torch.ones(2, 4)), layer(torch.ones(2, 4)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("act", [nn.weight_norm, nn.weight_standardization])
def test_it_compiles_whole(act):
    torch._dynamo.reset()
    layer, x = act(torch.nn.Linear(4, 3)), torch.randn(2, 4)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    assert float((y - layer(x)).detach().abs().max()) <= AGREEMENT
    torch._dynamo.reset()


def stack():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        nn.weight_norm(torch.nn.Conv2d(3, 5, 3)), torch.nn.Tanh(),
        nn.weight_norm(torch.nn.ConvTranspose2d(5, 4, 3), dim=1), torch.nn.Tanh(), torch.nn.Flatten(),
        nn.weight_norm(torch.nn.Linear(144, 6, bias=False)),
    )  # fmt: skip


def test_a_start_from_data_standardises_every_layer():
    network = stack()
    x = torch.randn(32, 3, 6, 6) * 3 + 1
    nn.init_weight_norm_(network, x)
    for layer in network:
        x = layer(x).detach()
        if not hasattr(layer, "weight"):
            continue
        channels = x.movedim(1, -1).flatten(0, -2)
        torch.testing.assert_close(channels.std(0, correction=0), torch.ones(channels.shape[1]))
        if layer.bias is not None:
            assert float(channels.mean(0).abs().max()) <= AGREEMENT
    assert not any(layer._forward_hooks for layer in network)


def test_a_start_that_fails_changes_nothing():
    network = torch.nn.Sequential(*stack(), torch.nn.Linear(99, 2))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        nn.init_weight_norm_(network, torch.randn(2, 3, 6, 6))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in network)


@pytest.mark.parametrize(
    ("batch", "came"), [(torch.empty(0, 4), "no value"), (torch.full((5, 4), torch.nan), "not finite")]
)
def test_a_start_needs_finite_values(batch, came):
    layer = nn.weight_norm(torch.nn.Linear(4, 3))
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(DataError, match=rf"finite values.*\[3, 4\] gives .*{came}"):
        nn.init_weight_norm_(layer, batch)
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


def test_a_constant_channel_keeps_its_length():
    layer = nn.weight_norm(torch.nn.Linear(4, 3))
    g = layer.parametrizations.weight.original0.detach().clone()
    nn.init_weight_norm_(layer, torch.ones(5, 4))
    assert torch.isfinite(layer.weight).all()
    torch.testing.assert_close(layer.parametrizations.weight.original0.detach(), g)


@pytest.mark.parametrize("name", LAYERS)
def test_a_standardised_weight(name):
    layer = nn.weight_standardization(LAYERS[name]())
    outputs = 1 if name.startswith("ConvT") else 0
    rows = layer.weight.detach().movedim(outputs, 0).flatten(1)
    assert float(rows.mean(1).abs().max()) <= AGREEMENT
    raw = layer.parametrizations.weight.original.detach().movedim(outputs, 0).flatten(1)
    variance = raw.var(1, correction=0)
    torch.testing.assert_close(rows.var(1, correction=0), variance / (variance + 1e-5))
    layer(input_of(name)).square().sum().backward()
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()
    kept = layer.weight.detach().clone()
    remove_parametrizations(layer, "weight")
    assert torch.equal(layer.weight, kept)


def test_bad_calls():
    linear = torch.nn.Linear(4, 3)
    for call, error, message in (
        (
            lambda: nn.weight_norm(linear, "wieght"),
            OptionError,
            "a parameter 'wieght' to be normalised, but has weight",
        ),
        (lambda: nn.weight_norm(torch.nn.ReLU()), OptionError, "but has none"),
        (lambda: nn.weight_norm(linear, dim=2), OptionError, "one of the 2 axes"),
        (lambda: nn.weight_standardization(linear, eps=0), OptionError, "eps must be above 0"),
        (lambda: nn.weight_standardization(torch.nn.Linear(1, 3)), ShapeError, "more than one input"),
        (lambda: nn.init_weight_norm_(linear, torch.ones(2, 4)), OptionError, "holds none: call weight_norm"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert type(linear) is torch.nn.Linear
