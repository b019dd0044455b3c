"""Whitening as a module: its state, its modes, and where it may stand."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from modules import OWN, fill, input_of
from tolerances import AGREEMENT, UNIT
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from normwright import nn, recalibrate
from normwright.errors import OptionError, ShapeError
from normwright.functional import whitening_norm
from normwright.lab.data.digits import read_digits

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
    state = (twin.running_mean, twin.running_covariance, twin.weight, twin.bias)
    assert torch.equal(
        module(x), whitening_norm(x, *state, True, num_batches_tracked=twin.num_batches_tracked, **options)
    )
    assert module.num_batches_tracked == 4
    assert torch.equal(module.running_covariance, twin.running_covariance)
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
    assert torch.equal(module.running_covariance, torch.eye(2).repeat(3, 1, 1))
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


def test_a_group_of_less_than_full_rank_keeps_its_accuracy_in_inference():
    """16 channels of 9 taps. With a moving average of projections it was right for 28 to 77 of 100 digits."""
    raw = read_digits()
    x, test = (part.float() / raw.top * 4 - 1 for part in (raw.train_x, raw.test_x))
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), nn.WhiteningNorm2d(16, activation="relu"),
        torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16 * 16, 10),
    )  # fmt: skip
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, 80)
    for _ in range(80):
        rows = torch.randint(len(x), (64,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x[rows]), raw.train_y[rows]).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        inference, training = (
            float((copy.deepcopy(network).train(mode)(test).argmax(1) == raw.test_y).float().mean())
            for mode in (False, True)
        )
    assert training > 0.9
    assert inference > training - 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", ["zca", "iterative"])
def test_compiled_inference_follows_its_statistics(method):
    torch._dynamo.reset()
    module, x = correlated(method).eval(), input_of("WhiteningNorm2d")
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        assert close(compiled(x), module(x))
        module.running_covariance.mul_(4)
    torch._dynamo.reset()


@pytest.mark.parametrize("method", ["zca", "iterative"])
def test_it_exports_to_what_knows_no_eigenvalues(method):
    module, x = correlated(method).eval(), input_of("WhiteningNorm2d")
    module.running_covariance[0] = (
        1.0  # singular: three channels that are one, and 3e9 between the directions
    )
    module.eps = 1e-9
    program = torch.export.export(module, (x,))
    assert not any("linalg" in str(node.target) for node in program.graph.nodes)
    assert close(program.module()(x), module(x))


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_what_is_exported_stands_what_rounding_leaves(scale):
    """16 channels of 9 taps: of the covariance's directions, those without variance have one below -eps."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3), nn.WhiteningNorm2d(16))
    batches = [torch.rand(16, 1, 10, 10) * scale for _ in range(6)]
    recalibrate(network, batches[1:])
    network.eval()
    covariance = network[1].running_covariance.double()
    assert scale == 1 or float(torch.linalg.eigvalsh(covariance).min()) < -network[1].eps
    with torch.no_grad():
        y, found = network(batches[0]), torch.export.export(network, (batches[0],)).module()(batches[0])
    # Directions without variance show the convolution's own rounding, scaled by 1/√eps.
    rounding = 9 * scale * torch.finfo(torch.float32).eps / network[1].eps ** 0.5
    assert float((found - y).abs().max()) <= rounding


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of the shapes that a call is checked for
def test_what_is_traced_reads_the_covariance():
    module, x = correlated("zca").eval().requires_grad_(False), input_of("WhiteningNorm2d")
    module(x)  # from here on the projection is kept
    traced = torch.jit.trace(module, x)
    module.running_covariance.mul_(4)
    traced.load_state_dict(module.state_dict())
    assert close(traced(x), module(x))


def test_fake_tensors_leave_nothing_behind():
    module, x = correlated("zca").eval(), input_of("WhiteningNorm2d")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert module(mode.from_tensor(x)).shape == x.shape
    assert torch.equal(module(x), copy.deepcopy(module)(x))


def test_selective_checkpointing_sees_the_same_operators_again():
    module, x = correlated("zca").eval(), input_of("WhiteningNorm2d").requires_grad_()
    y = checkpoint(
        module, x, use_reentrant=False,
        context_fn=lambda: create_selective_checkpoint_contexts([torch.ops.aten.bmm.default]),
    )  # fmt: skip
    (dx,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(module(x).sum(), x)
    assert close(dx, expected)


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_the_covariance_stays_wide_where_the_module_is_halved(half):
    module = correlated("zca").eval()
    covariance, x = module.running_covariance.clone(), input_of("WhiteningNorm2d")
    least = float(torch.linalg.eigvalsh(covariance).min()) + module.eps
    y, size = module(x).detach(), float((x.abs().max() + module.running_mean.abs().max()) * 3**0.5)
    module.to(half)
    assert {tensor.dtype for tensor in (module.weight, module.running_mean)} == {half}
    assert torch.equal(module.running_covariance, covariance)
    # x and the mean are rounded, which the projection scales by up to 1/√least and the weight by up to 1.5;
    # and the weight, bias and y, of which the largest are the outputs and 1.5
    bound = UNIT[half] * (1.5 * size * least**-0.5 + 3 * (float(y.abs().max()) + 1.5))
    assert float((module(x.to(half)) - y).detach().abs().max()) <= bound
    assert nn.WhiteningNorm2d(6, dtype=half).running_covariance.dtype == torch.float32
    assert module.double().running_covariance.dtype == torch.float64
    assert module.to("meta", half).running_covariance.is_meta


def correlated(method):
    """A module that has seen batches."""
    module = fill(nn.WhiteningNorm2d(6, group_size=3, method=method))
    module.reset_running_stats()
    for seed in range(3):
        module(input_of("WhiteningNorm2d", seed=seed).cumsum(1))
    return module


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
    assert torch.equal(module.running_covariance, twin.running_covariance)
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
        ({"group_size": "2"}, OptionError, "group_size must be at least 1 and a whole number, but is '2'"),
        ({"num_features": 2.5}, OptionError, "num_features must be at least 1 and a whole number.* is 2.5"),
        ({"num_features": "3"}, OptionError, "num_features must be at least 1 and a whole number.* is '3'"),
        ({"method": "pca"}, OptionError, "unknown method 'pca'"),
        ({"iterations": 0}, OptionError, "iterations must be at least 1"),
        ({"activation": "rely"}, OptionError, "did you mean 'relu'"),
    ],
)
def test_bad_constructors(options, error, message):
    with pytest.raises(error, match=message):
        nn.WhiteningNorm2d(**{"num_features": 6, **options})
