"""Every normaliser × dtype × shape × layout × activation × residual × parameters, against the reference."""

import numpy as np
import pytest
import torch
from cases import CASES, DTYPES, FACTORS, KINDS, LAYOUTS, Call, allowed, name
from pairwise import pairs
from tolerances import KERNELS_ARE_TRITONS, UNIT, assert_within

from normwright.functional import filter_response_norm, group_norm, instance_norm


def test_every_two_options_meet():
    met = {(i, a, j, b) for case in CASES for i, a in enumerate(case) for j, b in enumerate(case) if i < j}
    assert set(pairs(FACTORS, allowed)) <= met
    assert all(allowed(case) for case in CASES)


def test_every_kind_meets_every_dtype_in_every_layout():
    met = {(kind, dtype, layout) for kind, dtype, _, layout, *_ in CASES}
    assert len(met) == len(KINDS) * len(DTYPES) * len(LAYOUTS)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_forward_and_every_gradient(case):
    call = Call(case)
    given = {name: getattr(call, name) for name in ("x", "residual", "weight", "bias")}
    leaves = {n: t.detach().requires_grad_() for n, t in given.items() if t is not None}
    y = call.run(**{**given, **leaves})
    assert y.dtype == call.dtype
    # PyTorch's layer norm lays out anew what is not contiguous.
    laid_out = torch.empty_like(call.x.contiguous() if call.kind == "layer" else call.x)
    assert y.stride() == laid_out.stride()

    dy = call.dy.masked_fill(torch.tensor(call.analysis.kink()), 0)
    gradients = dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), dy), strict=True))
    assert gradients["x"].stride() == laid_out.stride()

    expected = call.expected(dy.double().numpy())
    bounds = call.analysis.gradients(dy.double().numpy(), call.parameter_dtype)
    assert_within(y, expected.y, bounds.y, "y")
    for which, gradient in gradients.items():
        assert gradient.dtype == given[which].dtype
        assert_within(gradient, *(getattr(part, f"d{which}") for part in (expected, bounds)), f"d{which}")


@pytest.mark.parametrize("case", CASES[::7], ids=name)
def test_without_gradients_the_answer_is_the_same_to_the_bit(case):
    call = Call(case)
    tensors = (call.x, call.residual, call.weight, call.bias)
    y = call.run(call.x.detach().requires_grad_(), *tensors[1:])
    assert torch.equal(call.run(*tensors), y)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", [(2, 3, 0), (2, 3, 0, 4), (2, 0, 4, 4)], ids=str)
@pytest.mark.parametrize(
    "function",
    [
        lambda x, *affine, **o: group_norm(x, max(x.shape[1], 1), *affine, **o),
        lambda x, *affine, **o: instance_norm(x, None, None, *affine, **o),
        filter_response_norm,
    ],
    ids=["group", "instance", "response"],
)
def test_without_channels_or_without_space(function, shape, activation):
    x, residual = (torch.empty(shape, requires_grad=True) for _ in range(2))
    weight, bias = (torch.ones(shape[1], requires_grad=True) for _ in range(2))
    y = function(x, weight, bias, residual=residual, activation=activation)
    assert y.shape == shape
    gradients = torch.autograd.grad(y.sum(), (x, residual, weight, bias))
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


# Of a moment's sum, and of a gradient's; twice where the moments are summed as the elements are.
ROUNDINGS = 8192 if KERNELS_ARE_TRITONS else 4096


@pytest.mark.parametrize("case", CASES[::7], ids=name)
def test_a_bound_is_no_wider_than_a_rounding_of_the_output_and_a_few_of_the_arithmetic(case):
    """A bound that nothing could exceed would test nothing."""
    call = Call(case)
    dy = call.dy.double().numpy()
    for part, bound in zip(call.expected(dy), call.analysis.gradients(dy, call.parameter_dtype), strict=True):
        if part.size:
            size = max(1.0, float(np.max(np.abs(part))))
            assert np.max(bound) <= (UNIT[call.dtype] + ROUNDINGS * call.analysis.u) * size
