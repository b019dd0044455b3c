"""Gradients where one argument is another, or was made from it, also where they are differentiated again.

What an argument was made from is autograd's own to follow: a backward that followed it too would count it
twice.
"""

from __future__ import annotations

import pytest
import torch
from tolerances import SAME_DERIVATIVE

from normwright.functional import (
    batch_norm,
    batch_renorm,
    dynamic_tanh,
    filter_response_norm,
    ghost_batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    masked_batch_norm,
    rms_norm,
    split_batch_norm,
    weight_norm,
    whitening_norm,
)

EPS = 2.0**-3
SHAPE = (6, 4, 5)
WHOLE = torch.ones(6, 5, dtype=torch.bool)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def column(vector):
    return vector.view(-1, 1)


def standardised(x, axes, *, center=True):
    centred = x - x.mean(axes, keepdim=True) if center else x
    return centred / (centred.square().mean(axes, keepdim=True) + EPS).sqrt()


def batch_plainly(x, weight, bias):
    return standardised(x, (0, 2)) * column(weight) + column(bias)


def instance_plainly(x, weight, bias):
    return standardised(x, 2) * column(weight) + column(bias)


def responses_plainly(x, weight, bias, threshold, eps):
    z = x / (x.square().mean(2, keepdim=True) + eps).sqrt() * column(weight) + column(bias)
    return torch.maximum(z, column(threshold))


def whitened_plainly(x, weight, bias):
    """By the eigenvectors of covariances whose eigenvalues lie apart."""
    rows = x.transpose(0, 1).flatten(1).unflatten(0, (2, 2))
    rows = rows - rows.mean(-1, keepdim=True)
    covariance = rows @ rows.mT / rows.shape[-1] + EPS * torch.eye(2, dtype=x.dtype)
    values, vectors = torch.linalg.eigh(covariance)
    white = (vectors / values.sqrt().unsqueeze(-2)) @ vectors.mT @ rows
    return white.flatten(0, 1).view(4, 6, 5).transpose(0, 1) * column(weight) + column(bias)


# Of x (6, 4, 5), weight and bias (4,): the function, and the formula as it stands in a book.
NORMALISERS = {
    "batch": (lambda x, w, b: batch_norm(x, None, None, w, b, True, eps=EPS), batch_plainly),
    "inference": (
        lambda x, w, b: batch_norm(x, torch.zeros(4).double(), torch.ones(4).double() - EPS, w, b, eps=EPS),
        lambda x, w, b: x * column(w) + column(b),
    ),
    "renorm": (
        lambda x, w, b: batch_renorm(
            x, torch.zeros(4).double(), torch.ones(4).double(), w, b, True, eps=EPS, r_max=1.0, d_max=0.0
        ),
        batch_plainly,
    ),
    "ghost": (
        lambda x, w, b: ghost_batch_norm(x, None, None, w, b, True, eps=EPS, ghost_size=3),
        lambda x, w, b: torch.cat([batch_plainly(part, w, b) for part in x.split(3)]),
    ),
    "split": (
        lambda x, w, b: split_batch_norm(
            x, torch.arange(6) // 3, [(None, None, None)] * 2, w, b, True, eps=EPS
        ),
        lambda x, w, b: torch.cat([batch_plainly(part, w, b) for part in x.split(3)]),
    ),
    "masked": (
        lambda x, w, b: masked_batch_norm(x, WHOLE, None, None, w, b, True, eps=EPS),
        batch_plainly,
    ),
    "instance": (lambda x, w, b: instance_norm(x, None, None, w, b, eps=EPS), instance_plainly),
    "group": (
        lambda x, w, b: group_norm(x, 2, w, b, EPS),
        lambda x, w, b: standardised(x.unflatten(1, (2, 2)), (2, 3)).flatten(1, 2) * column(w) + column(b),
    ),
    "layer": (
        lambda x, w, b: layer_norm(x.mT, (4,), w, b, EPS).mT,
        lambda x, w, b: standardised(x, 1) * column(w) + column(b),
    ),
    "rms": (
        lambda x, w, b: rms_norm(x.mT, (4,), w, EPS).mT + column(b),
        lambda x, w, b: standardised(x, 1, center=False) * column(w) + column(b),
    ),
    "responses": (
        lambda x, w, b: filter_response_norm(x, w, b, eps=EPS),
        lambda x, w, b: standardised(x, 2, center=False) * column(w) + column(b),
    ),
    "responses with their unit": (
        lambda x, w, b: filter_response_norm(x, w, w, b, EPS),
        lambda x, w, b: responses_plainly(x, w, w, b, EPS),
    ),
    "responses with an eps": (
        lambda x, w, b: filter_response_norm(x, w, b, eps=b.square().sum()),
        lambda x, w, b: responses_plainly(x, w, b, x.new_full((4,), -1e9), b.square().sum()),
    ),
    "tanh": (
        lambda x, w, b: dynamic_tanh(x, w.sum(), w, b, axis=1),
        lambda x, w, b: torch.tanh(w.sum() * x) * column(w) + column(b),
    ),
    "whitening": (
        lambda x, w, b: whitening_norm(x, None, None, w, b, True, eps=EPS, group_size=2),
        whitened_plainly,
    ),
    "weight": (
        lambda x, w, b: weight_norm(x, column(w) * column(b), 1),
        lambda x, w, b: x * column(w) * column(b) / x.square().sum((0, 2), keepdim=True).sqrt(),
    ),
}
# What weight and bias are, by x and a vector.
ARGUMENTS = {
    "the same tensor": lambda x, v: (v, v),
    "of one another": lambda x, v: (v, 2 * v.sin()),
    "of x": lambda x, v: (v, 2 * x.mean((0, 2))),
    "both of x": lambda x, v: (x.square().mean((0, 2)), v * x[0].mean(1)),
    "views of x": lambda x, v: (x[0, :, 0], x[0, :, 1]),
}


def agree(ours, theirs):
    scale = max(1.0, float(theirs.abs().max()))
    return float((ours - theirs).detach().abs().max()) <= SAME_DERIVATIVE * scale


def case_of(arguments):
    leaves = draw(*SHAPE).requires_grad_(), draw(4, seed=1).requires_grad_()
    return leaves, lambda function, x, v: function(x, *ARGUMENTS[arguments](x, v))


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("kind", NORMALISERS)
def test_first_gradients(kind, arguments):
    ours, plain = NORMALISERS[kind]
    leaves, call = case_of(arguments)
    dy = draw(*SHAPE, seed=2)
    wanted = {"allow_unused": True, "materialize_grads": True}
    expected = torch.autograd.grad(call(plain, *leaves), leaves, dy, **wanted)
    assert float(expected[0].abs().max()) > 0.01
    for again in (False, True):
        found = torch.autograd.grad(call(ours, *leaves), leaves, dy, create_graph=again, **wanted)
        assert all(map(agree, found, expected)), f"create_graph={again}"


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("kind", NORMALISERS)
def test_second_gradients(kind, arguments):
    leaves, call = case_of(arguments)
    wanted = {"allow_unused": True, "materialize_grads": True}
    one, two = draw(*SHAPE, seed=2), draw(*SHAPE, seed=3)
    results = []
    for function in NORMALISERS[kind]:
        dy = one.clone().requires_grad_()
        first = torch.autograd.grad(call(function, *leaves).sin(), leaves, dy, create_graph=True, **wanted)
        results.append(torch.autograd.grad((first[0] * two).sum() + first[1].sum(), (*leaves, dy), **wanted))
    assert all(map(agree, *results))


@pytest.mark.parametrize("kind", NORMALISERS)
def test_a_hook_of_an_argument_is_called_once(kind):
    leaves = draw(*SHAPE).requires_grad_(), *(draw(4, seed=seed).requires_grad_() for seed in (1, 2))
    calls = []
    for leaf in leaves:
        leaf.register_hook(lambda gradient: calls.append(gradient))
    loss = NORMALISERS[kind][0](*leaves).square().sum()
    torch.autograd.grad(loss, leaves, create_graph=True)
    assert len(calls) == 3


@pytest.mark.parametrize("kind", ["responses with their unit", "responses with an eps", "whitening"])
def test_several_gradients_at_once(kind):
    leaves, call = case_of("of one another")
    y, several = call(NORMALISERS[kind][0], *leaves), draw(3, *SHAPE, seed=2)
    together = torch.autograd.grad(y, leaves, several, is_grads_batched=True, retain_graph=True)
    apart = zip(*(torch.autograd.grad(y, leaves, dy, retain_graph=True) for dy in several), strict=True)
    assert all(agree(one, torch.stack(other)) for one, other in zip(together, apart, strict=True))
