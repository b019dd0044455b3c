"""Whitening as a module: its state, its modes, and where it may stand."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from modules import OWN, fill, input_of
from tolerances import AGREEMENT
from torch.utils.checkpoint import checkpoint

from normwright import nn
from normwright.errors import OptionError, ShapeError
from normwright.functional import whitening_norm

NAMES = [name for name in OWN if name.startswith("WhiteningNorm")]


def close(one, other):
    difference, scale = (part.detach().abs().max() for part in (one - other, other))
    return float(difference) <= AGREEMENT * max(1.0, float(scale))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["zca", "iterative"])
def test_forward_in_both_modes(name, method):
    module = fill(getattr(nn, name)(6, group_size=3, method=method, iterations=4))
    twin, x = copy.deepcopy(module), input_of(name)
    options = {"group_size": 3, "method": method, "iterations": 4}
    state = (twin.running_mean, twin.running_projection, twin.weight, twin.bias)
    assert torch.equal(
        module(x), whitening_norm(x, *state, True, num_batches_tracked=twin.num_batches_tracked, **options)
    )
    assert module.num_batches_tracked == 4
    assert torch.equal(module.running_projection, twin.running_projection)
    assert torch.equal(module.eval()(x), whitening_norm(x, *state, **options))
    with pytest.raises(ValueError, match="expected"):
        module(x[..., None])


def test_without_running_statistics_it_goes_by_the_batch():
    module = nn.WhiteningNorm2d(6, track_running_stats=False)
    x = input_of("WhiteningNorm2d")
    assert torch.equal(module(x), module.eval()(x))
    assert list(module.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(("channels", "size"), [(64, 16), (6, 6), (24, 12), (34, 2), (17, 1)])
def test_groups_where_none_are_said(channels, size):
    assert nn.WhiteningNorm1d(channels).group_size == size


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_state_and_repr(copied):
    module = fill(nn.WhiteningNorm2d(6, group_size=2, method="iterative", activation="relu"))
    twin, x = copied(module), input_of("WhiteningNorm2d")
    assert repr(twin) == repr(module)
    assert repr(module) == (
        "WhiteningNorm2d(6, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True, group_size=2, "
        "method=iterative, iterations=5, activation=relu)"
    )
    fresh = nn.WhiteningNorm2d(6, group_size=2, method="iterative", activation="relu")
    assert torch.equal(twin(x), module(x))
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh.eval()(x), module.eval()(x))
    module.reset_parameters()
    assert torch.equal(module.running_projection, torch.eye(2).repeat(3, 1, 1))
    assert module.num_batches_tracked == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", ["zca", "iterative"])
def test_it_compiles_whole(method):
    torch._dynamo.reset()
    module = fill(nn.WhiteningNorm2d(6, method=method, group_size=3))
    twin = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = input_of("WhiteningNorm2d").requires_grad_()
    y, expected = compiled(x), twin(x)
    assert close(y, expected)
    dy = input_of("WhiteningNorm2d", seed=1)
    (dx,), (wanted,) = (torch.autograd.grad(one, x, dy) for one in (y, expected))
    assert close(dx, wanted)
    for one, other in zip(module.buffers(), twin.buffers(), strict=True):
        assert close(one.float(), other.float())
    torch._dynamo.reset()


def test_it_exports():
    module = fill(nn.WhiteningNorm2d(6, group_size=3)).eval()
    x = input_of("WhiteningNorm2d")
    exported = torch.export.export(module, (x,)).module()
    assert close(exported(x), module(x))


def test_autocast_takes_no_digit_of_the_covariance():
    module, x = fill(nn.WhiteningNorm1d(6)), input_of("WhiteningNorm1d")
    twin = copy.deepcopy(module)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x.requires_grad_())
        assert torch.equal(y, twin(x))
        assert module(x.bfloat16()).dtype == torch.bfloat16
    plain = copy.deepcopy(module)
    assert torch.equal(plain.eval()(x), module.eval()(x))
    dy = input_of("WhiteningNorm1d", seed=1)
    y = twin(x)
    (expected,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(torch.autograd.grad(y, x, dy)[0], expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_counts_a_batch_once(reentrant):
    module = fill(nn.WhiteningNorm2d(6))
    twin, x = copy.deepcopy(module), input_of("WhiteningNorm2d").requires_grad_()
    checkpoint(module, x, use_reentrant=reentrant).square().sum().backward()
    twin(x)
    assert torch.equal(module.running_projection, twin.running_projection)
    assert module.num_batches_tracked == 4


@pytest.mark.parametrize("training", [True, False])
def test_shapes_on_the_meta_device(training):
    module = nn.WhiteningNorm1d(4, device="meta").train(training)
    x = torch.empty(9, 4, device="meta", requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.is_meta
    assert y.shape == x.grad.shape == (9, 4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"group_size": 4}, ShapeError, "must divide the 6 channels"),
        ({"group_size": "2"}, OptionError, "group_size must be a whole number of at least 1, but is '2'"),
        ({"num_features": 2.5}, OptionError, "num_features must be a whole number .*, but is 2.5"),
        ({"num_features": "3"}, OptionError, "num_features must be a whole number .*, but is '3'"),
        ({"method": "pca"}, OptionError, "unknown method 'pca'"),
        ({"iterations": 0}, OptionError, "iterations must be at least 1"),
        ({"activation": "rely"}, OptionError, "did you mean 'relu'"),
    ],
)
def test_bad_constructors(options, error, message):
    with pytest.raises(error, match=message):
        nn.WhiteningNorm2d(**{"num_features": 6, **options})
