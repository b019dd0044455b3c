"""Inputs that PyTorch's own function serves come out as they do there, forward and backward."""

from __future__ import annotations

import pytest
import torch

import normwright as nw
from normwright import functional as F
from normwright.errors import OptionError, ShapeError

COMPLEX = [torch.complex64, torch.complex128]


def draw(*shape, dtype, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def with_gradients(function, *given):
    leaves = [None if tensor is None else tensor.detach().requires_grad_() for tensor in given]
    y = function(*leaves)
    parts = y.unbind() if y.is_nested else [y]
    sum((part.abs() ** 2).sum() for part in parts).backward()
    gradients = [None if leaf is None else leaf.grad for leaf in leaves]
    return [part for tensor in (y, *gradients) if tensor is not None for part in tensor.detach().unbind()]


@pytest.mark.parametrize("eps", [None, 0.1])
@pytest.mark.parametrize("weight_dtype", [None, "complex", "real"])
@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_rms_norm_of_complex_numbers(dtype, weight_dtype, eps):
    x = draw(3, 4, 5, dtype=dtype)
    kinds = {None: None, "complex": dtype, "real": dtype.to_real()}
    weight = None if weight_dtype is None else draw(4, 5, dtype=kinds[weight_dtype], seed=1)
    ours, theirs = (
        with_gradients(lambda x, weight, norm=norm: norm(x, (4, 5), weight, eps), x, weight)
        for norm in (F.rms_norm, torch.nn.functional.rms_norm)
    )
    assert len(ours) == len(theirs)
    assert all(map(torch.equal, ours, theirs))


def test_a_module_with_complex_weights():
    x = draw(3, 4, dtype=torch.complex64)
    own, theirs = (kind(4, dtype=torch.complex64) for kind in (nw.nn.RMSNorm, torch.nn.RMSNorm))
    assert torch.equal(own(x), theirs(x))


@pytest.mark.parametrize("extra", ["residual", "activation", "out"])
def test_complex_numbers_with_arguments_that_pytorch_lacks(extra):
    x = draw(3, 4, dtype=torch.complex64)
    given = {"residual": x, "activation": "relu", "out": x}[extra]
    with pytest.raises(OptionError, match=f"{extra}= must be None with a complex input"):
        F.rms_norm(x, (4,), **{extra: given})


@pytest.fixture
def nested():
    return torch.nested.nested_tensor([draw(2, 4, dtype=torch.float32), draw(3, 4, dtype=torch.float32)])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_layer_norm_of_a_strided_nested_tensor(nested):
    parameters = [draw(4, dtype=torch.float32, seed=seed) for seed in (1, 2)]
    ours, theirs = (
        with_gradients(lambda *given, norm=norm: norm(given[0], (4,), *given[1:]), nested, *parameters)
        for norm in (F.layer_norm, torch.nn.functional.layer_norm)
    )
    assert len(ours) == len(theirs)
    assert all(map(torch.equal, ours, theirs))
    with pytest.raises(OptionError, match="activation= must be None with a nested tensor that is strided"):
        F.layer_norm(nested, (4,), *parameters, activation="relu")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_rms_norm_of_a_strided_nested_tensor_which_pytorch_lacks(nested):
    with pytest.raises(ShapeError, match=r"must be jagged .*, but is strided: make it by .*jagged"):
        F.rms_norm(nested, (4,))
