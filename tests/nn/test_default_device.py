"""Under `torch.set_default_device` a module that is placed by itself computes what it does without."""

import pytest
import torch
from torch.autograd import forward_ad

from normwright import nn

X = torch.randn(6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CALLS = {
    "GhostBatchNorm1d": ({"ghost_size": 3}, {}),
    "SplitBatchNorm1d": ({}, {"domains": torch.arange(6) % 2}),
    "MaskedBatchNorm1d": ({}, {"lengths": torch.tensor([5, 2, 3, 5, 1, 4])}),
    "WhiteningNorm1d": ({}, {}),
}


def made(name):
    return getattr(nn, name)(4, device="cpu", dtype=torch.float64, **CALLS[name][0])


def results(module, named):
    x = X.clone().requires_grad_()
    y = module(x, **named)
    (dx,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (again,) = torch.autograd.grad(dx.pow(2).sum(), x)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(module(forward_ad.make_dual(X, X.cos()), **named)).tangent
    return y, dx, again, tangent, *module.buffers(), module.eval()(X, **named)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # by forward mode
@pytest.mark.parametrize("name", CALLS)
def test_tensors_are_made_where_the_input_is(name):
    expected = results(made(name), CALLS[name][1])
    with torch.device("meta"):
        found = results(made(name), CALLS[name][1])
    assert all(map(torch.equal, found, expected))
