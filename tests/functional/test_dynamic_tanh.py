"""Dynamic tanh against the float64 reference and, in transforms, against plain PyTorch."""

import numpy as np
import pytest
import torch
from tolerances import (
    ACTIVATION,
    AGREEMENT,
    SAME_DERIVATIVE,
    UNIT,
    assert_within,
    depth,
    rounded,
)

from normwright.backends.gradients import DALPHA
from normwright.errors import DtypeError, ShapeError
from normwright.functional import dynamic_tanh
from normwright.reference import dynamic_tanh as reference

DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
]
# Channels with long runs, with short ones, and innermost; many, three, and in rows that no pack divides.
CASES = [
    ((2, 3, 4, 5), 1),
    ((2, 8, 24, 24), 1),
    ((3, 257, 7, 7), 1),
    ((2, 5, 20000), 1),
    ((1031, 3), -1),
    ((70, 9, 33), -1),
    ((4, 6, 5, 8), 2),
    ((7,), 0),
]
LAYOUTS = ["contiguous", "reversed", "channels-last", "sliced"]
ALPHA = 0.75


def in_layout(x, axis, layout):
    if layout == "channels-last":
        return x.movedim(axis, -1).contiguous().movedim(-1, axis)
    if layout == "reversed":
        return x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    if layout == "sliced":
        return x.repeat_interleave(2, -1)[..., ::2]
    return x


def draw(shape, axis, dtype, parameters, layout="contiguous"):
    """x, dy, alpha, weight and bias."""
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.rand(shape, generator=generator, dtype=torch.float64) * 6 - 2 for _ in range(2))
    vectors = [torch.rand(shape[axis], generator=generator, dtype=torch.float64) * 4 - 2 for _ in range(2)]
    scalar = torch.tensor(ALPHA, dtype=parameters)
    return (
        in_layout(x.to(dtype), axis, layout),
        dy.to(dtype),
        scalar,
        *(vector.to(parameters) for vector in vectors),
    )


class Expected:
    """y and the gradients in float64, each with a bound."""

    def __init__(self, x, dy, weight, bias, axis, dtype, parameters):
        x, dy, weight, bias = (part.double().numpy() for part in (x, dy, weight, bias))
        u = UNIT[torch.float64 if dtype == torch.float64 else torch.float32]
        others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
        view = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
        w, b = weight.reshape(view), bias.reshape(view)
        z = ALPHA * x
        t = np.tanh(z)
        # alpha·x is rounded once, of which tanh passes on no more than that of its own value.
        t_error = u * (np.abs(t) + ACTIVATION["tanh"][2] * (np.abs(z) + np.abs(t)))
        self.y = np.moveaxis(reference(np.moveaxis(x, axis, -1), ALPHA, weight, bias), -1, axis)
        size = np.abs(t * w) + np.abs(b)
        self.y_bound = np.abs(w) * t_error + 2 * u * size + rounded(self.y, dtype)
        # 1 - t² has two roundings; dy times it, alpha·weight and their product one each.
        slope, slope_error = 1 - t * t, 2 * np.abs(t) * t_error + 2 * u
        self.dx = ALPHA * w * dy * slope
        self.dx_bound = np.abs(ALPHA * w * dy) * (slope_error + 3 * u * slope) + rounded(self.dx, dtype)

        def summed(terms, errors, axes):
            count = int(np.prod([x.shape[i] for i in axes]))
            total = terms.sum(axes)
            bound = errors.sum(axes) + (depth(count) + 1) * u * np.abs(terms).sum(axes)
            return total, bound + rounded(total, parameters)

        self.dweight, self.dweight_bound = summed(dy * t, np.abs(dy) * t_error, others)
        self.dbias, self.dbias_bound = summed(dy, 0 * dy, others)
        terms, errors = self.dx / ALPHA * x, self.dx_bound / ALPHA * np.abs(x)
        self.dalpha, self.dalpha_bound = summed(terms, errors, tuple(range(x.ndim)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "axis"), CASES, ids=str)
@pytest.mark.parametrize(("dtype", "parameters"), DTYPES, ids=str)
def test_against_the_reference(shape, axis, layout, dtype, parameters):
    x, dy, alpha, weight, bias = draw(shape, axis, dtype, parameters, layout)
    expected = Expected(x, dy, weight, bias, axis, dtype, parameters)
    leaves = [part.detach().requires_grad_() for part in (x, alpha, weight, bias)]
    y = dynamic_tanh(*leaves, axis=axis)
    assert y.dtype == dtype
    assert y.stride() == torch.empty_like(x).stride()
    assert_within(y, expected.y, expected.y_bound, "y")
    assert torch.equal(dynamic_tanh(x, ALPHA, weight, bias, axis=axis), y)
    for name, gradient, leaf in zip(
        ("dx", "dalpha", "dweight", "dbias"), torch.autograd.grad(y, leaves, dy), leaves, strict=True
    ):
        assert gradient.dtype == leaf.dtype
        assert_within(gradient, getattr(expected, name), getattr(expected, name + "_bound"), name)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (1, 2), (0, 3)], ids=str)
def test_gradients_that_are_asked_for_alone(wanted):
    x, dy, *parameters = draw((2, 8, 9, 9), 1, torch.float32, torch.float32)
    leaves = [part.requires_grad_() for part in (x, *parameters)]
    every = torch.autograd.grad(dynamic_tanh(*leaves, axis=1), leaves, dy)
    call = [leaf if i in wanted else leaf.detach() for i, leaf in enumerate(leaves)]
    some = torch.autograd.grad(dynamic_tanh(*call, axis=1), [call[i] for i in wanted], dy)
    for i, gradient in zip(wanted, some, strict=True):
        assert torch.equal(gradient, every[i])


@pytest.mark.parametrize("without", [("weight",), ("bias",), ("weight", "bias")], ids=str)
def test_without_weight_or_bias(without):
    x, _, alpha, weight, bias = draw((2, 8, 9, 9), 1, torch.float32, torch.float32)
    given = {"weight": weight, "bias": bias} | dict.fromkeys(without)
    constant = {"weight": torch.ones(8), "bias": torch.zeros(8)}
    full = {name: constant[name] if vector is None else vector for name, vector in given.items()}
    assert torch.equal(dynamic_tanh(x, alpha, **given, axis=1), dynamic_tanh(x, alpha, **full, axis=1))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_derivatives(axis):
    x, _, alpha, weight, bias = draw((3, 3, 3), axis, torch.float64, torch.float64)
    leaves = [part.requires_grad_() for part in (x, alpha, weight, bias)]
    assert torch.autograd.gradcheck(lambda *call: dynamic_tanh(*call, axis=axis), leaves)
    assert torch.autograd.gradgradcheck(lambda *call: dynamic_tanh(*call, axis=axis), leaves)


@pytest.mark.parametrize("axis", [1, -1])
def test_values_past_every_range(axis):
    inf, nan = float("inf"), float("nan")
    row = torch.tensor([0.0, -0.0, 1e-45, 30.0, -1e30, inf, -inf, nan])
    x = (row.repeat(1, 20) if axis == 1 else row[:, None]).expand(2, *([8, 20] if axis == -1 else [1, 160]))
    x = x.clone().requires_grad_()
    weight = torch.full((x.shape[axis],), 2.0, requires_grad=True)
    y = dynamic_tanh(x, 0.5, weight, axis=axis)
    expected = 2 * torch.tanh(0.5 * x)
    assert torch.equal(y.nan_to_num(9), expected.nan_to_num(9))
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert torch.equal(dx.isnan(), x.isnan())
    assert torch.equal(dx[x.abs() >= 30], torch.zeros_like(dx[x.abs() >= 30]))


def test_a_nan_stays_in_its_channel():
    for x, axis in ((torch.zeros(4, 3, 80), 1), (torch.zeros(40, 3), -1)):
        x[2, 1] = float("nan")
        weight = torch.ones(3, requires_grad=True)
        y = dynamic_tanh(x, 0.5, weight, axis=axis)
        y.backward(torch.ones_like(y))
        assert weight.grad.isnan().tolist() == [False, True, False]
        assert torch.equal(y.isnan(), x.isnan())


@pytest.mark.parametrize(("shape", "axis"), [((0, 3, 4), 1), ((2, 3, 0), 1), ((2, 0, 4), 1), ((0, 3), -1)])
def test_nothing(shape, axis):
    x = torch.empty(shape, requires_grad=True)
    alpha, weight, bias = (torch.ones(size, requires_grad=True) for size in ((), shape[axis], shape[axis]))
    y = dynamic_tanh(x, alpha, weight, bias, axis=axis)
    y.sum().backward()
    assert y.shape == x.grad.shape == shape
    assert not any(part.grad.any() for part in (alpha, weight, bias))


@pytest.fixture
def threads():
    """Sets the number of threads, and sets it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((8, 32, 40, 40), 1), ((1, 2, 300, 300), 1), ((64, 130, 7, 7), 1), ((700, 96), -1), ((40001, 3), -1)],
    ids=str,
)
def test_the_same_bits_with_every_number_of_threads(shape, axis, threads):
    x, dy, *parameters = draw(shape, axis, torch.float32, torch.float32)
    leaves = [part.requires_grad_() for part in (x, *parameters)]
    results = []
    for count in (1, 2, 3, 5):
        threads(count)
        y = dynamic_tanh(*leaves, axis=axis)
        results.append([y, *torch.autograd.grad(y, leaves, dy)])
    for others in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))


def plain(x, alpha, weight, bias):
    return torch.tanh(alpha * x) * weight + bias


def close(ours, theirs):
    return float((ours - theirs).abs().max()) <= SAME_DERIVATIVE * max(1.0, float(theirs.abs().max()))


# PyTorch runs an operator of anyone's own under vmap sample by sample, and says so once.
@pytest.mark.filterwarnings(
    "ignore:There is a performance drop because we have not yet implemented the batching rule"
)
def test_the_transforms_of_torch_func():
    x, _, *parameters = draw((4, 6), -1, torch.float64, torch.float64)
    places = (0, 1, 2, 3)

    def cubed(function):
        return lambda *call: function(*call).pow(3).sum()

    first = [torch.func.grad(cubed(f), argnums=places)(x, *parameters) for f in (dynamic_tanh, plain)]
    assert all(close(ours, theirs) for ours, theirs in zip(*first, strict=True))
    second = [torch.func.jacrev(torch.func.grad(cubed(f)))(x, *parameters) for f in (dynamic_tanh, plain)]
    assert close(*second)
    each = [
        torch.func.vmap(torch.func.grad(cubed(f)), in_dims=(0, None, None, None))(x, *parameters)
        for f in (dynamic_tanh, plain)
    ]
    assert close(*each)


# PyTorch's tracer instantiates autograd functions, and warns that one should not.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("learned", [True, False])
def test_compiles_whole(learned):
    torch._dynamo.reset()
    x, dy, alpha, weight, bias = draw((3, 6, 5), 1, torch.float32, torch.float32)
    compiled = torch.compile(dynamic_tanh, fullgraph=True, backend="aot_eager")
    leaves = [part.requires_grad_() for part in (x, *([alpha] if learned else []), weight, bias)]
    call = leaves if learned else [x, ALPHA, weight, bias]
    results = []
    for function in (compiled, dynamic_tanh):
        y = function(*call, axis=1)
        results.append([y.detach(), *torch.autograd.grad(y, leaves, dy)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.stride() == theirs.stride()
        assert float((ours - theirs).abs().max()) <= AGREEMENT * max(1.0, float(theirs.abs().max()))
    torch._dynamo.reset()


def test_exports_as_one_operator():
    class Squash(torch.nn.Module):
        def forward(self, x, alpha, weight, bias):
            return dynamic_tanh(x, alpha, weight, bias, axis=1)

    x, _, *parameters = draw((3, 6, 5), 1, torch.float32, torch.float32)
    program = torch.export.export(
        Squash(), (x, *parameters), dynamic_shapes=({0: torch.export.Dim.AUTO}, None, None, None)
    )
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["normwright.channel_tanh.default"]
    assert torch.equal(program.module()(x, *parameters), dynamic_tanh(x, *parameters, axis=1))


def test_alpha_may_be_a_vector_of_one_only():
    x, _, alpha, weight, bias = draw((3, 6), -1, torch.float32, torch.float32)
    leaf = alpha.reshape(1).requires_grad_()
    y = dynamic_tanh(x, leaf, weight, bias)
    assert torch.equal(y, dynamic_tanh(x, alpha, weight, bias))
    y.sum().backward()
    assert leaf.grad.shape == (1,)
    with pytest.raises(ShapeError, match="alpha must be a scalar"):
        dynamic_tanh(x, torch.ones(6), weight, bias)


@pytest.mark.parametrize("alpha", [0.5, np.float16(0.5), np.float64(0.5)], ids=repr)
def test_alpha_may_be_any_real_number(alpha):
    x = torch.linspace(-2, 2, 5)
    assert torch.equal(dynamic_tanh(x, alpha), dynamic_tanh(x, torch.tensor(0.5)))


@pytest.mark.parametrize("alpha", [True, np.bool_(True), 0.5j, np.complex64(0.5), "0.5", None], ids=repr)
def test_alpha_may_be_nothing_else(alpha):
    with pytest.raises(DtypeError, match="alpha must be a real number or a floating point scalar, but is"):
        dynamic_tanh(torch.ones(3), alpha)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_operator_gives_alphas_gradient_alphas_shape(dtype):
    x, alpha = torch.randn(3, 4, dtype=dtype), torch.ones(1, dtype=dtype)
    _, dalpha, *_ = torch.ops.normwright.channel_tanh_backward(x, x, alpha, None, None, 1, DALPHA)
    assert dalpha.shape == alpha.shape
