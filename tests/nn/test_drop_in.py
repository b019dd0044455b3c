"""A module of normwright.nn stands wherever the module of torch.nn with its name stood."""

import copy
import inspect
import pickle

import pytest
import torch
from modules import NORMALISERS, OF_SEQUENCES, ON_MODULES, OWN, THEIRS, fill, input_of
from tolerances import AGREEMENT, UNIT

from normwright import nn
from normwright.functional import layer_norm

CONSTRUCTORS = [
    *((name, arguments, {}) for name, (arguments, _) in NORMALISERS.items()),
    ("BatchNorm2d", (6, 1e-3, 0.2, False, False), {}),
    ("BatchNorm2d", (6,), {"eps": 1e-3, "momentum": None, "affine": True, "track_running_stats": True}),
    ("BatchNorm1d", (6, 1e-3, 0.2, True, True, "cpu", torch.float64), {}),
    ("BatchNorm3d", (6,), {"device": "meta", "dtype": torch.bfloat16}),
    ("BatchNorm2d", (6,), {"bias": False}),
    ("SyncBatchNorm", (6, 1e-3, 0.2, False, False), {}),
    ("SyncBatchNorm", (6,), {"momentum": None, "process_group": "of one's own", "dtype": torch.float64}),
    ("FrozenBatchNorm2d", (6, 1e-3, 0.2, False), {"dtype": torch.float64}),
    ("FrozenBatchNorm3d", (6,), {"device": "meta", "momentum": None}),
    ("InstanceNorm2d", (6, 1e-3, 0.2, True, True), {}),
    ("InstanceNorm1d", (6,), {"affine": True, "dtype": torch.float64}),
    ("GroupNorm", (3, 6, 1e-3, False), {}),
    ("GroupNorm", (3, 6), {"device": "meta", "dtype": torch.float64}),
    ("GroupNorm", (3, 6), {"bias": False}),
    ("LayerNorm", (5, 1e-3, False, False), {}),
    ("LayerNorm", ([3, 5],), {"bias": False, "dtype": torch.float64}),
    ("RMSNorm", (5, 1e-3, False), {}),
    ("RMSNorm", (5,), {"device": "meta"}),
    ("LocalResponseNorm", (4, 1e-3, 0.5, 2.0), {}),
]


def distance(ours, theirs):
    """The largest difference, in units of the largest element or of 1."""
    return float((ours - theirs).abs().max().detach()) / max(float(theirs.abs().max().detach()), 1.0)


def both(name, arguments=None, options=None):
    arguments = NORMALISERS[name][0] if arguments is None else arguments
    return (getattr(library, name)(*arguments, **(options or {})) for library in (nn, THEIRS))


def test_every_module_is_here():
    assert set(nn.__all__) == set(NORMALISERS) | set(OWN) | ON_MODULES | OF_SEQUENCES


@pytest.mark.parametrize(("name", "arguments", "options"), CONSTRUCTORS, ids=str)
def test_constructor_attributes_and_repr(name, arguments, options):
    if "bias" in options and "bias" not in inspect.signature(getattr(THEIRS, name)).parameters:
        options = {}  # PyTorch 2.10 has no such argument
    ours, theirs = both(name, arguments, options)
    assert isinstance(ours, getattr(torch.nn, name.removeprefix("Frozen")))
    assert repr(ours) == repr(theirs)
    public = {key: value for key, value in vars(theirs).items() if not key.startswith("_")}
    assert {key: vars(ours)[key] for key in public} == public
    state, model = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(model)
    for key, tensor in model.items():
        assert (state[key].dtype, state[key].device, state[key].shape) == (
            tensor.dtype,
            tensor.device,
            tensor.shape,
        )
        assert tensor.is_meta or torch.equal(state[key], tensor)


@pytest.mark.parametrize("name", NORMALISERS)
def test_the_activation_is_keyword_only_and_shown(name):
    arguments = NORMALISERS[name][0]
    ours = getattr(nn, name)(*arguments, activation="silu")
    assert repr(ours).endswith(", activation=silu)")
    x = input_of(name)
    plain = getattr(nn, name)(*arguments)(x)
    assert distance(ours(x), torch.nn.functional.silu(plain)) <= AGREEMENT
    assert distance(ours(x, residual=x), torch.nn.functional.silu(plain + x)) <= AGREEMENT
    with pytest.raises(ValueError, match="did you mean 'silu'"):
        getattr(nn, name)(*arguments, activation="siluu")


@pytest.mark.parametrize("name", NORMALISERS)
def test_the_state_goes_both_ways(name):
    ours, theirs = both(name)
    ours.load_state_dict(fill(theirs, 1).state_dict(), strict=True)
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))
    theirs.load_state_dict(fill(ours, 2).state_dict(), strict=True)
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


OPTIONS = {
    "SyncBatchNorm": [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}],
    "BatchNorm": [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}],
    "FrozenBatchNorm": [{}, {"affine": False}, {"momentum": None}],
    "InstanceNorm": [{}, {"affine": True}, {"track_running_stats": True}],
    "GroupNorm": [{}, {"affine": False}],
    "LayerNorm": [{}, {"elementwise_affine": False}, {"bias": False}],
    "RMSNorm": [{}, {"elementwise_affine": False}, {"eps": 1e-3}],
    "LocalResponseNorm": [{}],
}
TRAINED = [
    (name, options)
    for name in NORMALISERS
    for options in OPTIONS[name.removesuffix(f"{name[-2]}d").strip("123d")]
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("name", "options"), TRAINED, ids=str)
def test_training_and_inference_agree_with_pytorch(name, options, layout):
    ours, theirs = both(name, options=options)
    fill(ours, 1)
    theirs.load_state_dict(ours.state_dict())
    for training in (True, True, False):
        x = input_of(name, seed=int(training))
        x = x.contiguous(memory_format=layout) if x.dim() == 4 else x
        results = []
        for module in (ours, theirs):
            leaf = x.detach().clone().requires_grad_()
            y = module.train(training)(leaf)
            gradients = torch.autograd.grad(y.square().sum(), [leaf, *module.parameters()])
            results.append([y, *gradients, *module.buffers()])
        for one, other in zip(*results, strict=True):
            assert one.dtype == other.dtype
            assert distance(one, other) <= AGREEMENT
        y = results[0][0]
        lies_as = x.contiguous() if name == "LayerNorm" else x
        assert y.stride() == torch.empty_like(lies_as).stride()


def test_layer_norm_lies_in_memory_as_pytorchs_of_a_permuted_input():
    ours, theirs = nn.LayerNorm(4), torch.nn.LayerNorm(4)
    x = torch.randn(2, 4, 3, 5).permute(0, 2, 3, 1)
    assert ours(x).stride() == theirs(x).stride()
    torch.testing.assert_close(ours(x), theirs(x))
    expected = theirs(x)
    assert layer_norm(x, (4,), out=x) is x
    torch.testing.assert_close(x, expected)


# PyTorch's RMSNorm says that it is slow there.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("name", NORMALISERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_autocast(name, dtype):
    ours, theirs = both(name)
    x = input_of(name, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y, model = ours(x), theirs(x)
    assert y.dtype == model.dtype
    assert distance(y, model) <= 2 * UNIT[y.dtype] + AGREEMENT


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name in NORMALISERS if name != "LocalResponseNorm"])
def test_an_empty_batch(name, training):
    shape = (0, *NORMALISERS[name][1][1:])
    results = []
    for module in both(name):
        x = torch.empty(shape, requires_grad=True)
        y = module.train(training)(x)
        y.sum().backward()
        gradients = [parameter.grad for parameter in module.parameters()]
        results.append([y, x.grad, *gradients, *module.buffers()])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("name", ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"])
def test_instance_norm_without_a_batch_axis(name):
    ours, theirs = both(name, options={"affine": True})
    x = input_of(name)[0]
    assert ours(x).shape == x.shape
    assert distance(ours(x), theirs(x)) <= AGREEMENT
    assert torch.equal(ours(x), ours(x[None])[0])
    assert torch.equal(ours(x, residual=x), ours(x[None], residual=x[None])[0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("name", NORMALISERS)
def test_copies(name, copied):
    module = fill(getattr(nn, name)(*NORMALISERS[name][0], activation="tanh"))
    module(input_of(name))  # moves the running statistics
    twin = copied(module)
    assert type(twin) is type(module)
    assert repr(twin) == repr(module)
    assert torch.equal(twin(input_of(name)), module(input_of(name)))
    for tensor in twin.state_dict().values():
        tensor.zero_()
    assert all(tensor.any() for tensor in module.state_dict().values())


def test_a_module_pickled_before_there_was_an_activation_has_none():
    module = nn.LayerNorm(5)
    del module.activation
    assert module(torch.ones(2, 5)).abs().max() == 0


@pytest.mark.parametrize("name", NORMALISERS)
def test_hooks(name):
    seen = []
    module = getattr(nn, name)(*NORMALISERS[name][0])
    module.register_forward_pre_hook(lambda module, inputs: seen.append("before"))
    module.register_forward_hook(lambda module, inputs, output: seen.append("after"))
    module.register_full_backward_hook(lambda module, dx, dy: seen.append("backward"))
    module(input_of(name).requires_grad_()).sum().backward()
    assert seen == ["before", "after", "backward"]


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"])
def test_num_batches_tracked(name):
    ours, theirs = both(name)
    for module in (ours, theirs):
        for training in (True, False, True):
            module.train(training)(input_of(name))
    assert ours.num_batches_tracked.item() == theirs.num_batches_tracked.item() == 2


def test_weight_tying_and_parametrisations_reach_the_normaliser():
    module = nn.LayerNorm(5)
    torch.nn.utils.parametrize.register_parametrization(module, "weight", torch.nn.Softplus())
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    y = module(x)
    y.square().sum().backward()
    assert module.parametrizations.weight.original.grad is not None
    assert torch.equal(y, nn.LayerNorm(5)(x) * torch.nn.functional.softplus(torch.ones(5)))


@pytest.mark.parametrize("name", ["BatchNorm2d", "GroupNorm", "LayerNorm"])
def test_a_parameter_that_something_took_the_place_of_is_used(name):
    """As pruning and parametrisations do: `weight` is then no parameter of the module."""
    module, x = fill(getattr(nn, name)(*NORMALISERS[name][0])), input_of(name)
    doubled = copy.deepcopy(module)
    with torch.no_grad():
        doubled.weight.mul_(2)
    expected = doubled(x)
    weight = module.weight.detach()
    del module.weight
    module.weight = 2 * weight
    torch.testing.assert_close(module(x), expected, rtol=0, atol=0)


def test_a_parametrised_weight_is_used():
    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    module, x = fill(nn.LayerNorm((3, 5))), input_of("LayerNorm")
    before = module(x) - module.bias
    torch.nn.utils.parametrize.register_parametrization(module, "weight", Doubled())
    torch.testing.assert_close(module(x) - module.bias, 2 * before)
