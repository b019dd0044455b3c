"""Whitening against its float64 formula, at its invariants, and on inputs that are hard to whiten."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tolerances import SAME_DERIVATIVE, UNIT, assert_within, whitened

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.functional import batch_norm, whitening_norm
from normwright.functional.whitening import inference, inverse_root
from normwright.functional.whitening.autograd import Rule, _plainly
from normwright.functional.whitening.inference import projection_by
from normwright.reference import whiten_by
from normwright.reference import whitening_norm as reference
from normwright.reference import whitening_norm_backward as reference_backward

EPS = 2.0**-7
METHODS = ["zca", "iterative"]
SHAPES = [(9, 6), (5, 6, 5), (3, 6, 4, 5), (2, 6, 3, 2, 5)]
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
]


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixed(shape, seed=0):
    """Channels that are correlated, and have a mean."""
    x, mix = draw(*shape, seed=seed), draw(shape[1], shape[1], seed=7) * 0.5 + torch.eye(shape[1])
    return torch.einsum("nc...,dc->nd...", x, mix) + 2


def as_laid_out(x, layout):
    if layout == "channels-last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "every other":
        return x.repeat_interleave(2, 0)[::2]
    return x


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "every other"])
@pytest.mark.parametrize(("dtype", "parameters"), DTYPES, ids=str)
def test_forward_and_gradients(shape, method, layout, dtype, parameters):
    x = as_laid_out(mixed(shape).to(dtype), layout)
    weight, bias = (draw(6, seed=seed).to(parameters) for seed in (1, 2))
    dy = as_laid_out(draw(*shape, seed=3).to(dtype), layout)
    arrays = [tensor.double().numpy() for tensor in (dy, x, weight, bias)]
    expected = reference(arrays[1], 3, *arrays[2:], EPS, method=method)
    gradients = reference_backward(*arrays[:2], 3, arrays[2], EPS, method=method)
    bounds = whitened(arrays[1], arrays[0], 3, *arrays[2:], EPS, dtype, parameters)

    leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
    y = whitening_norm(leaves[0], None, None, *leaves[1:], True, eps=EPS, group_size=3, method=method)
    assert y.dtype == dtype
    assert y.stride() == torch.empty_like(x).stride()
    assert_within(y, expected.y, bounds.y, "y")
    for name, gradient in zip(("dx", "dweight", "dbias"), torch.autograd.grad(y, leaves, dy), strict=True):
        assert_within(gradient, getattr(gradients, name), getattr(bounds, name), name)


@pytest.mark.parametrize("method", METHODS)
def test_in_pieces_as_at_once(method, monkeypatch):
    x = mixed((7, 6, 4)).requires_grad_()
    dy = draw(7, 6, 4)
    both = []
    for piece in (2**18, 50):  # all samples, and two at a time
        monkeypatch.setattr("normwright.functional.whitening.passes._PIECE", piece)
        y = whitening_norm(x, None, None, training=True, group_size=3, method=method)
        both.append([y.detach(), *torch.autograd.grad(y, x, dy)])
    for one, other in zip(*both, strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0, atol=SAME_DERIVATIVE * float(one.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_derivatives_to_the_second(method):
    x, weight, bias = (
        tensor.requires_grad_() for tensor in (mixed((6, 4)), draw(4, seed=1), draw(4, seed=2))
    )

    def whiten(*call):
        return whitening_norm(call[0], None, None, *call[1:], True, eps=EPS, group_size=2, method=method)

    assert torch.autograd.gradcheck(whiten, (x, weight, bias))
    assert torch.autograd.gradgradcheck(whiten, (x, weight, bias))


@pytest.mark.parametrize("method", METHODS)
def test_the_differentiable_backward_is_the_fast_one(method):
    x, dy = mixed((9, 6)).requires_grad_(), draw(9, 6)
    y = whitening_norm(x, None, None, training=True, eps=EPS, group_size=3, method=method)
    (fast,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    (again,) = torch.autograd.grad(y, x, dy, create_graph=True)
    assert again.requires_grad
    torch.testing.assert_close(again.detach(), fast, rtol=0, atol=SAME_DERIVATIVE * float(fast.abs().max()))


def test_equal_eigenvalues_have_a_gradient():
    # The covariance is the identity to the last bit: through eigenvectors the gradient would be 0/0.
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    x.requires_grad_()

    def whiten(x):
        return whitening_norm(x, None, None, training=True, eps=EPS, group_size=2)

    (dx,) = torch.autograd.grad(whiten(x), x, draw(4, 2))
    assert dx.isfinite().all()
    assert torch.autograd.gradcheck(whiten, x)
    assert torch.autograd.gradgradcheck(whiten, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [1e-5, 0.25])
def test_what_comes_out_is_white_but_for_eps(eps, dtype):
    x = mixed((400, 6)).to(dtype)
    y = whitening_norm(x, None, None, training=True, eps=eps, group_size=3).double()
    for group in range(2):
        part, given = y[:, 3 * group :][:, :3], x.double()[:, 3 * group :][:, :3]
        covariance = (given - given.mean(0)).T @ (given - given.mean(0)) / 400
        # P·Σ·P with P = (Σ + eps)^(-1/2): I less what eps takes, eps·(Σ + eps)^-1
        expected = torch.eye(3) - eps * torch.linalg.inv(covariance + eps * torch.eye(3, dtype=torch.float64))
        least = float(torch.linalg.eigvalsh(covariance)[0])
        bound = 8 * (400 + 12) * UNIT[dtype] * float(covariance.trace()) / least
        assert float((part.T @ part / 400 - expected).abs().max()) <= bound
        assert float(part.mean(0).abs().max()) <= bound


def test_the_symmetric_root_moves_x_the_least():
    x = mixed((50, 4))
    y = whitening_norm(x, None, None, training=True, eps=1e-12, group_size=4)
    turn = torch.linalg.qr(draw(4, 4, seed=5))[0]
    distance = [float((white - (x - x.mean(0))).square().sum()) for white in (y, y @ turn)]
    assert distance[0] < distance[1]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_groups_of_one_are_batch_norm(shape, method):
    x, weight, bias = mixed(shape), draw(6, seed=1), draw(6, seed=2)
    ours, theirs = (
        [torch.zeros(6, dtype=torch.float64), torch.ones(variances, dtype=torch.float64)]
        for variances in ((6, 1, 1), (6,))
    )
    for training in (True, False):
        y = whitening_norm(x, *ours, weight, bias, training, eps=EPS, group_size=1, method=method)
        expected = batch_norm(x, *theirs, weight, bias, training, eps=EPS)
        for one, other in ((y, expected), (ours[0], theirs[0]), (ours[1].flatten(), theirs[1])):
            torch.testing.assert_close(one, other, rtol=0, atol=SAME_DERIVATIVE * float(other.abs().max()))


def test_iterations_come_near_the_root():
    x = mixed((60, 4))
    exact = whitening_norm(x, None, None, training=True, group_size=4)
    runs = [
        whitening_norm(x, None, None, training=True, group_size=4, method="iterative", iterations=count)
        for count in (1, 5, 40)
    ]
    far = [float((y - exact).abs().max()) for y in runs]
    assert far[0] > far[1] > far[2]
    # 40 are more than convergence needs; written as P³·S, rounding would have grown by then. The root of a
    # rounded covariance is wrong by as much as its condition times the rounding.
    condition = float(torch.linalg.cond((x - x.mean(0)).T @ (x - x.mean(0))))
    assert far[2] <= SAME_DERIVATIVE * condition * float(exact.abs().max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-30, 1e19, 1e30])
def test_magnitudes_whose_squares_overflow_or_vanish(scale, method):
    x = mixed((20, 6)).mul(scale).float().requires_grad_()
    dy = draw(20, 6).float()
    y = whitening_norm(x, None, None, training=True, eps=EPS, group_size=3, method=method)
    (dx,) = torch.autograd.grad(y, x, dy)
    arrays = dy.double().numpy(), x.detach().double().numpy()
    ones, zeros = np.ones(6), np.zeros(6)
    bounds = whitened(arrays[1], arrays[0], 3, ones, zeros, EPS, torch.float32, torch.float32)
    assert_within(y, reference(arrays[1], 3, eps=EPS, method=method).y, bounds.y, "y")
    expected = reference_backward(*arrays, 3, eps=EPS, method=method).dx
    smallest = torch.finfo(torch.float32).smallest_normal
    assert_within(dx, expected, bounds.dx + smallest, "dx")


@pytest.mark.parametrize("ratio", [1e3, -1e6])
def test_a_mean_far_from_zero(ratio):
    x = (mixed((30, 6)) * 16).round().div(16).float() + ratio
    arrays = x.double().numpy(), np.ones(6), np.zeros(6)
    bounds = whitened(arrays[0], 0 * arrays[0], 3, *arrays[1:], EPS, torch.float32, torch.float32)
    y = whitening_norm(x, None, None, training=True, eps=EPS, group_size=3)
    assert_within(y, reference(arrays[0], 3, eps=EPS).y, bounds.y, "y")
    # and it matters: the bound is far below what the mean's own rounding would make wrong
    assert float(bounds.y.max()) < 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_group(bad, method):
    x = mixed((20, 6)).float()
    clean = x.clone().requires_grad_()
    x[3, 1] = bad
    x.requires_grad_()
    dy = draw(20, 6).float()
    outputs = []
    for given in (x, clean):
        y = whitening_norm(given, None, None, training=True, group_size=3, method=method)
        outputs.append([y.detach(), *torch.autograd.grad(y, given, dy)])
    for spoilt, whole in zip(*outputs, strict=True):
        assert spoilt[:, :3].isnan().all()
        assert torch.equal(spoilt[:, 3:], whole[:, 3:])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", ["constant", "duplicated", "all zero"])
def test_a_singular_covariance_is_eps_s_to_decide(fault, method):
    x = mixed((40, 6)).float()
    if fault == "constant":
        x[:, 1] = 3.0
    elif fault == "duplicated":
        x[:, 1] = x[:, 0]
    else:
        x[:] = 0.0
    x.requires_grad_()
    dy = draw(40, 6).float()
    y = whitening_norm(x, None, None, training=True, eps=EPS, group_size=3, method=method)
    (dx,) = torch.autograd.grad(y, x, dy)
    arrays = dy.double().numpy(), x.detach().double().numpy()
    bounds = whitened(arrays[1], arrays[0], 3, np.ones(6), np.zeros(6), EPS, torch.float32, torch.float32)
    assert_within(y, reference(arrays[1], 3, eps=EPS, method=method).y, bounds.y, "y")
    assert_within(dx, reference_backward(*arrays, 3, eps=EPS, method=method).dx, bounds.dx, "dx")
    if fault == "duplicated":
        assert torch.equal(y[:, 0].round(decimals=4), y[:, 1].round(decimals=4))


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((20, 6), {"group_size": 4}, ShapeError, "must divide the 6 channels, but is 4: take one of 1"),
        ((20, 6), {"group_size": 0}, OptionError, "group_size must be at least 1"),
        ((6, 6), {"group_size": 6}, ShapeError, "Expected more than 6 values per channel"),
        ((5, 6), {"group_size": 6}, ShapeError, "smaller groups by group_size="),
        ((1, 6), {"group_size": 1}, ShapeError, "Expected more than 1 values per channel"),
        ((20, 6), {"group_size": 3, "method": "zac"}, OptionError, "did you mean 'zca'"),
        ((20, 6), {"group_size": 3, "iterations": 0}, OptionError, "iterations must be at least 1"),
        ((20, 6), {"group_size": 3, "eps": 0.0}, OptionError, "eps must be positive during training"),
        ((20, 6), {"group_size": 3, "eps": math.nan}, OptionError, "eps must be positive"),
        ((20, 6), {"group_size": 3, "activation": "rely"}, OptionError, "did you mean 'relu'"),
        ((20,), {"group_size": 1}, ShapeError, "batch norm takes an input of shape"),
    ],
)  # fmt: skip
def test_bad_calls(shape, options, error, message):
    with pytest.raises(error, match=message):
        whitening_norm(draw(*shape), None, None, training=True, **options)


def test_bad_running_statistics():
    x, mean, covariance = draw(20, 6), torch.zeros(6), torch.eye(3).repeat(2, 1, 1)
    with pytest.raises(OptionError, match="must either both be None"):
        whitening_norm(x, mean, None, training=True, group_size=3)
    with pytest.raises(OptionError, match="must be defined in evaluation mode"):
        whitening_norm(x, None, None, group_size=3)
    with pytest.raises(ShapeError, match=r"must have shape \[3, 2, 2\]"):
        whitening_norm(x, mean, covariance, group_size=2)
    with pytest.raises(DtypeError, match="running_covariance must be floating point"):
        whitening_norm(x, mean, covariance.int(), group_size=3)
    with pytest.raises(OptionError, match="needs num_batches_tracked"):
        whitening_norm(x, mean, covariance, training=True, momentum=None, group_size=3)
    with pytest.raises(DtypeError, match="not implemented for 'Int'"):
        whitening_norm(x.int(), None, None, training=True, group_size=3)


@pytest.mark.parametrize("momentum", [0.25, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_running_statistics_are_averages_of_the_batches(momentum, dtype):
    mean, covariance = torch.zeros(6, dtype=dtype), torch.eye(3, dtype=dtype).repeat(2, 1, 1)
    count, average = torch.tensor(0), [mean.double().numpy(), covariance.double().numpy()]
    for step in range(3):
        x = mixed((12, 6), seed=step)
        expected = reference(x.numpy(), 3, eps=EPS)
        share = momentum or 1 / (step + 1)
        average = [
            (1 - share) * old + share * new
            for old, new in zip(average, (expected.mean, expected.covariance * 12 / 11), strict=True)
        ]
        running = (mean, covariance)
        whitening_norm(x.double(), *running, training=True, momentum=momentum, eps=EPS, group_size=3,
                       num_batches_tracked=count)  # fmt: skip
    assert count == 3
    for actual, value in zip((mean, covariance), average, strict=True):
        # a rounding of each step's sum, and of float64 sums of 12 products the hundredfold of one
        bound = 4 * UNIT[dtype] * np.abs(value).max() + 100 * 2.0**-53 * np.abs(value).max() * 12
        assert_within(actual, value, np.full(value.shape, bound), "running")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_inference_whitens_by_the_running_statistics(layout, with_gradient, method):
    x = as_laid_out(mixed((5, 6, 4, 3)).float(), layout).requires_grad_(with_gradient)
    mean, mix = draw(6, seed=1).float(), draw(2, 3, 3, seed=2).float()
    covariance = mix @ mix.mT + torch.eye(3) / 4  # its projection is at most 2
    weight, bias, residual = (
        draw(6, seed=3).float(),
        draw(6, seed=4).float(),
        draw(5, 6, 4, 3, seed=5).float(),
    )
    settings = {"eps": EPS, "method": method}
    y = whitening_norm(x, mean, covariance, weight, bias, group_size=3, residual=residual, activation="tanh",
                       **settings)  # fmt: skip
    assert y.requires_grad == with_gradient
    assert y.stride() == x.stride()
    arrays = [tensor.detach().double().numpy() for tensor in (x, mean, covariance, weight, bias)]
    expected = np.tanh(whiten_by(*arrays, **settings) + residual.double().numpy())
    # 3 products and sums, the weight, bias, residual and tanh: below 16 roundings of values below 32
    assert_within(y, expected, np.full(x.shape, 16 * 32 * UNIT[torch.float32]), "y")


@pytest.mark.parametrize("method", METHODS)
def test_inference_knows_the_directions_that_past_weights_made(method):
    """Moving averages of projections scaled some directions by 1/√eps: outputs had variances in the 1000s."""
    source, weights = draw(400, 2), draw(4, 2, seed=1)
    mean, covariance = torch.zeros(4).double(), torch.eye(4).double().repeat(1, 1, 1)
    for step in range(40):  # four channels of two sources: rank 2
        weights = weights + 0.05 * draw(4, 2, seed=2 + step)
        x = source @ weights.T
        whitening_norm(x, mean, covariance, training=True, group_size=4, method=method)
    y = whitening_norm(x, mean, covariance, group_size=4, method=method)
    # The last batch has a tenth of the running covariance.
    assert float(torch.linalg.eigvalsh(torch.cov(y.T))[-1]) <= 10


def test_a_projection_is_kept_until_the_covariance_changes():
    covariance, rule = torch.eye(3).repeat(2, 1, 1), Rule(3, EPS, "zca", 5)
    first = projection_by(covariance, rule)
    assert projection_by(covariance, rule) is first
    assert projection_by(covariance.clone(), rule) is not first
    covariance.data[1] *= 4  # which a tensor's version does not tell
    second = projection_by(covariance, rule)
    assert torch.equal(second, rule.projection(covariance.double()))
    assert not torch.equal(second, first)
    assert not torch.equal(projection_by(covariance, rule._replace(eps=1.0)), second)
    covariance[0, 0, 0] = math.nan
    assert projection_by(covariance, rule)[0].isnan().all()
    assert torch.equal(projection_by(covariance, rule)[1], second[1])


def test_a_captured_graph_keeps_nothing_and_asks_for_no_eigenvalues(monkeypatch):
    """A CUDA graph repeats what was launched: it compares no values, and eigh waits for its answer."""
    covariance = torch.cov(mixed((40, 6)).T).double().unsqueeze(0)
    rule = Rule(6, EPS, "zca", 5)
    expected = projection_by(covariance, rule)
    monkeypatch.setattr(inference, "is_captured", lambda x: True)
    monkeypatch.setattr(inverse_root, "is_captured", lambda x: True)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    monkeypatch.setattr(torch, "equal", None)
    found = projection_by(covariance, rule)
    assert found is not expected
    torch.testing.assert_close(found, expected, rtol=0, atol=SAME_DERIVATIVE * float(expected.abs().max()))


def test_an_eps_that_is_written_later_is_asked_again():
    x, mean, covariance, eps = torch.ones(3, 4), torch.zeros(4), torch.eye(4).unsqueeze(0), torch.tensor(0.0)
    assert float(whitening_norm(x, mean, covariance, eps=eps, group_size=4)[0, 0]) == 1.0
    eps.fill_(3.0)
    assert float(whitening_norm(x, mean, covariance, eps=eps, group_size=4)[0, 0]) == 0.5


def test_what_inference_mode_keeps_serves_a_gradient():
    x, mean, covariance = mixed((9, 6)), torch.zeros(6), torch.eye(3).repeat(2, 1, 1)
    with torch.inference_mode():
        y = whitening_norm(x, mean, covariance, eps=EPS, group_size=3)
    leaf = x.clone().requires_grad_()
    again = whitening_norm(leaf, mean, covariance, eps=EPS, group_size=3)
    torch.testing.assert_close(again.detach(), y.clone(), rtol=0, atol=SAME_DERIVATIVE * float(y.abs().max()))
    (dx,) = torch.autograd.grad(again, leaf, torch.ones_like(x))
    torch.testing.assert_close(dx, torch.full_like(x, (1 + EPS) ** -0.5), rtol=0, atol=SAME_DERIVATIVE)


@pytest.mark.parametrize("method", METHODS)
def test_inference_of_several_networks_at_once(method):
    x, means = mixed((9, 6)), draw(4, 6, seed=1)
    mix = draw(4, 2, 3, 3, seed=2)

    def whiten(mean, covariance):
        once, again = (
            whitening_norm(part, mean, covariance, eps=EPS, group_size=3, method=method) for part in (x, -x)
        )
        return once + 2 * again

    together = torch.func.vmap(whiten)(means, mix @ mix.mT)
    for y, *state in zip(together, means, mix @ mix.mT, strict=True):
        torch.testing.assert_close(
            y, whiten(*state), rtol=0, atol=SAME_DERIVATIVE / EPS * float(y.abs().max())
        )


def test_an_empty_batch_moves_nothing_but_the_count():
    mean, covariance, count = torch.ones(6), torch.eye(3).repeat(2, 1, 1), torch.tensor(0)
    y = whitening_norm(
        torch.empty(0, 6), mean, covariance, training=True, group_size=3, num_batches_tracked=count
    )
    assert y.shape == (0, 6)
    assert torch.equal(mean, torch.ones(6))
    assert count == 1
    assert whitening_norm(torch.empty(0, 6), mean, covariance, group_size=3).shape == (0, 6)


@pytest.mark.parametrize("method", METHODS)
def test_under_vmap_and_grad(method):
    xs, direction = torch.stack([mixed((9, 4), seed=seed) for seed in range(3)]), draw(9, 4, seed=9)

    def loss(x):
        y = whitening_norm(x, None, None, training=True, eps=EPS, group_size=2, method=method)
        return (y * direction).sin().sum()

    together = torch.func.vmap(torch.func.grad(loss))(xs)
    for x, found in zip(xs, together, strict=True):
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(leaf), leaf)
        torch.testing.assert_close(
            found, expected, rtol=0, atol=SAME_DERIVATIVE * float(expected.abs().max())
        )


def test_written_plainly_it_is_the_same():
    x, weight, bias = mixed((4, 6, 5)).float(), draw(6, seed=1).float(), draw(6, seed=2).float()
    arrays = [tensor.double().numpy() for tensor in (x, weight, bias)]
    y = _plainly(x, weight, bias, Rule(3, EPS, "zca", 5))[0]
    bounds = whitened(arrays[0], 0 * arrays[0], 3, *arrays[1:], EPS, torch.float32, torch.float32)
    assert_within(y, reference(arrays[0], 3, *arrays[1:], EPS).y, bounds.y, "y")


# Forward-mode differentiation loads PyTorch's decompositions, which it still scripts.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("method", METHODS)
def test_forward_mode_against_finite_differences(method):
    leaves = [leaf.requires_grad_() for leaf in (mixed((5, 4)), draw(4, seed=1), draw(4, seed=2))]

    def whiten(x, weight, bias):
        return whitening_norm(
            x, None, None, weight, bias, True, eps=EPS, group_size=2, method=method, activation="silu"
        )

    assert torch.autograd.gradcheck(whiten, leaves, check_forward_ad=True, check_batched_forward_grad=True)
    assert torch.autograd.gradgradcheck(whiten, leaves, check_fwd_over_rev=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_derivatives_of_a_tangent():
    """Reverse and forward mode over forward mode, of a covariance whose eigenvalues are equal too."""
    x = torch.cat([torch.eye(4), -torch.eye(4)]).double()
    along, other = draw(8, 4, seed=1), draw(8, 4, seed=2)

    def whiten(x):
        return whitening_norm(x, None, None, training=True, eps=EPS, group_size=4).sin().pow(3).sum()

    def tangent(x):
        return torch.func.jvp(whiten, (x,), (along,))[1]

    def by_gradients(x):
        return (torch.func.grad(whiten)(x) * along).sum()

    expected = torch.func.grad(by_gradients)(x)
    scale = float(expected.abs().max())
    assert float((torch.func.grad(tangent)(x) - expected).abs().max()) <= SAME_DERIVATIVE * scale
    second = torch.func.jvp(tangent, (x,), (other,))[1]
    assert abs(float(second - (expected * other).sum())) <= SAME_DERIVATIVE * scale * other.numel()
