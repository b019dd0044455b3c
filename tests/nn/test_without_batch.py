"""Filter response norm, dynamic tanh and maxout as modules."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from modules import OWN, fill, input_of

from normwright import functional as F
from normwright import nn
from normwright.errors import OptionError

MODULES = ("FilterResponseNorm", "DynamicTanh", "Maxout")


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_state_and_autocast(name, copied):
    module, x = fill(getattr(nn, name)(*OWN[name][0])), input_of(name)
    twin = copied(module)
    assert repr(twin) == repr(module)
    assert torch.equal(twin(x), module(x))
    assert torch.equal(module.eval()(x), twin(x))
    fresh = getattr(nn, name)(*OWN[name][0])
    fresh.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(fresh(x), module(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x.bfloat16()).dtype == torch.bfloat16
    exported = torch.export.export(module, (x,)).module()(x)
    torch.testing.assert_close(exported, module(x))


def test_filter_response_norm_starts_and_calls_the_function():
    module, x = nn.FilterResponseNorm(6, learn_eps=True, activation="silu"), input_of("FilterResponseNorm")
    assert {name: float(part.detach().mean()) for name, part in module.named_parameters()} == pytest.approx(
        {"weight": 1, "bias": 0, "threshold": 0, "eps_learned": 1e-4}
    )
    fill(module)
    eps = 1e-6 + module.eps_learned.abs()
    vectors = (module.weight, module.bias, module.threshold)
    expected = F.filter_response_norm(x, *vectors, eps, residual=x, activation="silu")
    assert torch.equal(module(x, x), expected)
    module(x).sum().backward()
    assert module.eps_learned.grad.abs() > 0
    bare = nn.FilterResponseNorm(6, affine=False, tlu=False)
    assert not list(bare.parameters())
    assert torch.equal(bare(x), F.filter_response_norm(x))


def test_a_learned_eps_is_as_wide_as_the_module():
    module = nn.FilterResponseNorm(2, affine=False, tlu=False, learn_eps=True, dtype=torch.float64)
    x = 1e-3 * torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    eps = module.eps + module.eps_learned.abs()
    expected = x / (x.square().mean(2, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(module(x), expected, rtol=2.0**-48, atol=0)


def test_dynamic_tanh_and_maxout_call_their_functions():
    module, x = fill(nn.DynamicTanh(6, alpha=0.3, axis=1)), input_of("FilterResponseNorm")
    expected = F.dynamic_tanh(x, module.alpha, module.weight, module.bias, axis=1)
    assert torch.equal(module(x), expected)
    module.reset_parameters()
    assert [float(part.detach().mean()) for part in module.parameters()] == pytest.approx([0.3, 1, 0])
    assert [name for name, _ in nn.DynamicTanh(6, affine=False).named_parameters()] == ["alpha"]
    assert torch.equal(nn.Maxout(3, axis=1)(x), F.maxout(x, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.FilterResponseNorm(6, eps=0), "eps must be above 0"),
        (lambda: nn.FilterResponseNorm(6, eps="a"), "eps must be above 0, .* but is 'a'"),
        (lambda: nn.FilterResponseNorm(6, activation="rely"), "did you mean 'relu'"),
        (lambda: nn.Maxout(0), "at least 1 and a whole number"),
    ],
)
def test_bad_constructors(make, message):
    with pytest.raises(OptionError, match=message):
        make()
