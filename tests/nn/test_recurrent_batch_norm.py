"""RecurrentBatchNorm as a cell of the user's own calls it, step by step."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from normwright import nn
from normwright.errors import OptionError, ShapeError
from normwright.functional import batch_norm, recurrent_batch_norm


def steps_of(count, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 3, generator=draw).to(dtype) * (step + 1) + step for step in range(count)]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("cap", [1, 3, 5])
def test_each_step_is_a_batch_norm_of_its_own(cap, momentum):
    """To the bit, in training and in inference; past the cap it is the last one, called again."""
    norm = nn.RecurrentBatchNorm(3, cap, momentum=momentum)
    twins = [torch.nn.BatchNorm1d(3, momentum=momentum) for _ in range(cap)]
    for pass_ in range(2):
        for step, x in enumerate(steps_of(5, pass_)):
            twin = twins[min(step, cap - 1)]
            moments = (twin.running_mean, twin.running_var)
            options = {"num_batches_tracked": twin.num_batches_tracked}
            expected = batch_norm(x, *moments, norm.weight, norm.bias, True, momentum, **options)
            assert torch.equal(norm(x, step), expected)
    norm.eval()
    for slot, twin in enumerate(twins):
        assert torch.equal(norm.running_mean[slot], twin.running_mean)
        assert torch.equal(norm.running_var[slot], twin.running_var)
        assert norm.num_batches_tracked[slot] == twin.num_batches_tracked
    for step, x in enumerate(steps_of(8)):
        twin = twins[min(step, cap - 1)]
        expected = batch_norm(x, twin.running_mean, twin.running_var, norm.weight, norm.bias)
        assert torch.equal(norm(x, step), expected)


def test_gradients():
    norm = nn.RecurrentBatchNorm(3, 2, dtype=torch.float64)
    x = steps_of(1, dtype=torch.float64)[0].requires_grad_()

    def call(x, weight, bias):
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        return recurrent_batch_norm(x, 1, mean, variance, weight, bias, True)

    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(call, (x, norm.weight, norm.bias))


def test_state_copies_and_repr():
    norm = nn.RecurrentBatchNorm(3, 4, bias=False)
    for step, x in enumerate(steps_of(4)):
        norm(x, step)
    assert list(norm.state_dict()) == ["weight", "running_mean", "running_var", "num_batches_tracked"]
    assert repr(norm) == (
        "RecurrentBatchNorm(3, max_length=4, eps=1e-05, momentum=0.1, affine=True, bias=False, gain=0.1)"
    )
    norm.eval()
    for twin in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(twin(steps_of(1)[0], 2), norm(steps_of(1)[0], 2))
    norm.reset_parameters()
    assert not norm.num_batches_tracked.any()
    assert torch.equal(norm.weight, torch.full((3,), 0.1))
    assert nn.RecurrentBatchNorm(3, 4, affine=False).weight is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_dtypes(dtype):
    norm = nn.RecurrentBatchNorm(3, 2, dtype=dtype)
    y = norm(steps_of(1, dtype=dtype)[0], 1)
    y.sum().backward()
    assert y.dtype == norm.weight.grad.dtype == dtype


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_compiles_whole():
    torch._dynamo.reset()
    norm = nn.RecurrentBatchNorm(3, 2)
    twin = copy.deepcopy(norm)
    compiled = torch.compile(norm, fullgraph=True, backend="eager")
    for step, x in enumerate(steps_of(2)):
        assert torch.equal(compiled(x, step), twin(x, step))
    assert torch.equal(norm.running_mean, twin.running_mean)
    torch._dynamo.reset()


def test_bad_calls_leave_the_statistics():
    norm = nn.RecurrentBatchNorm(3, 4)
    norm(steps_of(1)[0], 0)
    before = copy.deepcopy(norm.state_dict())
    x = steps_of(1)[0]
    for given, error, message in (
        ((x[:1], 0), ShapeError, "Expected more than 1 value per channel"),
        ((x, -1), OptionError, "step must be at least 0, but is -1"),
        ((x[:, :2], 0), ShapeError, r"running_mean must be \(max_length, 2\)"),
        ((x[0], 0), ShapeError, r"running_mean must be \(max_length, 0\)"),
    ):
        with pytest.raises(error, match=message):
            norm(*given)
    norm.eval()(x, 0)
    with pytest.raises(ShapeError, match="at most 1 steps long in inference"):
        norm(x, 1)
    mean, variance = norm.running_mean, norm.running_var
    with pytest.raises(OptionError, match="needs num_batches_tracked"):
        recurrent_batch_norm(x, 0, mean, variance, training=True, momentum=None)
    with pytest.raises(ShapeError, match=r"num_batches_tracked must be \(4,\)"):
        recurrent_batch_norm(x, 0, mean, variance, num_batches_tracked=torch.zeros(3))
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (((0, 4), {}), "num_features must be at least 1"),
        (((3, 0), {}), "max_length must be at least 1"),
        (((3, 2.5), {}), "max_length must be at least 1 and a whole number, but is 2.5"),
        (((3, 4), {"momentum": -0.1}), "momentum must lie between 0 and 1"),
    ],
)
def test_bad_constructors(call, message):
    with pytest.raises(OptionError, match=message):
        nn.RecurrentBatchNorm(*call[0], **call[1])
