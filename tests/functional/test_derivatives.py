"""First and second derivatives against finite differences, third ones against a plain formula."""

import pytest
import torch
from cases import EPS, KINDS, Call, case_of
from tolerances import SAME_DERIVATIVE

from normwright.functional import batch_norm, group_norm, layer_norm
from normwright.reference import ACTIVATIONS

SHAPE = (3, 4, 2)  # small, for finite differences take every element in turn


def call_of(kind, activation, residual):
    """A small float64 call whose z lies at least 0.01 from the kink of a relu, further than steps move it."""
    options = {"activation": activation, "affine": "weight" if kind == "rms" else "weight and bias"}
    case = case_of(kind, SHAPE, torch.float64, residual="contiguous" if residual else None, **options)
    calls = (Call(case, seed) for seed in range(1000))
    return next(call for call in calls if abs(call.analysis.z).min() > 0.01)


@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_first_and_second_derivatives(kind, activation, residual):
    call = call_of(kind, activation, residual)
    given = [call.x, call.residual, call.weight, call.bias]
    places = [place for place, tensor in enumerate(given) if tensor is not None]

    def function(*tensors):
        arguments = [None] * 4
        for place, tensor in zip(places, tensors, strict=True):
            arguments[place] = tensor
        return call.run(*arguments)

    leaves = [given[place].requires_grad_() for place in places]
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def plain(x, weight, bias, axes, view, activation):
    """The formula as it stands in a book, for autograd to differentiate."""
    cut = x.reshape(view)
    mean = cut.mean(axes, keepdim=True)
    variance = (cut - mean).square().mean(axes, keepdim=True)
    x_hat = ((cut - mean) / (variance + EPS).sqrt()).reshape(x.shape)
    return activation(x_hat * weight + bias)


NORMALISERS = {
    "batch": (
        lambda *a, **o: batch_norm(a[0], None, None, *a[1:], True, 0.1, EPS, **o),
        (3, 4, 2),
        (0, 2),
        (4,),
    ),
    "group": (lambda *a, **o: group_norm(a[0], 2, *a[1:], EPS, **o), (3, 2, 2, 2), (2, 3), (4,)),
    "layer": (lambda *a, **o: layer_norm(a[0], (4, 2), *a[1:], EPS, **o), (3, 4, 2), (1, 2), (4, 2)),
}


@pytest.mark.parametrize("activation", [None, "silu", "gelu", "tanh", "sigmoid"])
@pytest.mark.parametrize("kind", NORMALISERS)
def test_the_third_derivative(kind, activation):
    normaliser, view, axes, parameters = NORMALISERS[kind]
    draw = torch.Generator().manual_seed(3)
    x, one, two = (torch.randn(SHAPE, dtype=torch.float64, generator=draw) for _ in range(3))
    weight, bias = (torch.randn(parameters, dtype=torch.float64, generator=draw) for _ in range(2))
    outer = getattr(torch.nn.functional, activation) if activation else lambda z: z

    def wide(parameter):
        return parameter.reshape(-1, *[1] * (3 - 1 - parameter.dim())) if parameter.dim() == 1 else parameter

    def third(function):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
        first = torch.autograd.grad((function(*leaves) * one).sin().sum(), leaves, create_graph=True)
        (second,) = torch.autograd.grad((first[0] * two).sum() + first[1].sum(), leaves[0], create_graph=True)
        return torch.autograd.grad((second * one * two).sum(), leaves)

    ours = third(lambda *leaves: normaliser(*leaves, activation=activation))
    plainly = third(lambda x, w, b: plain(x, wide(w), wide(b), axes, view, outer))
    for one_way, other_way in zip(ours, plainly, strict=True):
        scale = float(other_way.abs().max())
        assert scale > 0.01
        assert float((one_way - other_way).abs().max()) <= SAME_DERIVATIVE * max(scale, 1.0)
