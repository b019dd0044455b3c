"""What is left of a normaliser computes one multiply-add per element, everywhere the same."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from layers import DTYPES
from tolerances import UNIT, assert_within, rounded
from torch import Tensor

from normwright.network.folding.affine import Affine
from normwright.network.folding.channel_affine import ChannelAffine


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def module_of(dtype: torch.dtype = torch.float32, activation: str | None = None) -> ChannelAffine:
    return ChannelAffine.of(Affine(drawn(4), drawn(4, 1)[:, 0]), activation=activation, dtype=dtype)


SHAPES = ((3, 4), (3, 4, 5), (2, 4, 3, 5), (2, 4, 3, 2, 5), (0, 4, 3, 5))


def compiled(module: ChannelAffine) -> ChannelAffine:
    torch._dynamo.reset()
    return torch.compile(module, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("way", [lambda module: module, compiled], ids=["operator", "compiled"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_gradients(shape: tuple[int, ...], dtype: torch.dtype, way) -> None:
    module, x = module_of(dtype), drawn(*shape).to(dtype).requires_grad_()
    y = way(module)(x)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    along = (-1, *[1] * (len(shape) - 2))
    weight, bias, exact = (tensor.detach().double().numpy() for tensor in (module.weight, module.bias, x))
    weight, bias = weight.reshape(along), bias.reshape(along)
    # computed in float32 at least: a product and a sum, each of at most |wx| + |b|, and y's own rounding
    u = UNIT[torch.float64 if dtype == torch.float64 else torch.float32]
    expected = weight * exact + bias
    assert_within(
        y, expected, 3 * u * (np.abs(weight * exact) + np.abs(bias)) + rounded(expected, dtype), "y"
    )
    dx, dbias = torch.autograd.grad(y.sum(), [x, module.bias])
    assert torch.equal(dx, module.weight.view(along).expand_as(x))
    assert torch.equal(dbias, torch.full_like(dbias, x.numel() // 4))


def test_a_map_is_rounded_once() -> None:
    affine = Affine(drawn(4), drawn(4, 1)[:, 0])
    module = ChannelAffine.of(affine, dtype=torch.bfloat16)
    assert torch.equal(module.weight, affine.scale.bfloat16())
    assert torch.equal(module.bias, affine.shift.bfloat16())


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "sigmoid", "tanh", "leaky_relu"])
def test_residual_and_activation(activation: str) -> None:
    module, x = module_of(torch.float64, activation), drawn(2, 4, 3, 5)
    plain = module_of(torch.float64)(x) + 2 * x
    expected = getattr(torch.nn.functional, activation)(plain)
    torch.testing.assert_close(module(x, 2 * x), expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(compiled(module)(x, 2 * x), expected, rtol=1e-14, atol=1e-14)


def test_the_state_is_weight_and_bias() -> None:
    module = module_of()
    assert list(module.state_dict()) == ["weight", "bias"]
    assert repr(module) == "ChannelAffine(4)"
    x = drawn(2, 4, 3).float()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))
    assert torch.equal(module.double()(x.double()), module(x.double()))
    assert torch.equal(copy.deepcopy(module).half()(x.half()), module.half()(x.half()))


def test_autocast_gives_half_for_half() -> None:
    x = drawn(2, 4, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert module_of()(x).dtype is torch.bfloat16


# PyTorch's exporter uses what PyTorch deprecates.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_exports_to_a_multiplication_and_a_sum(tmp_path) -> None:
    module, x = module_of().eval(), drawn(2, 4, 3, 5).float()
    torch.onnx.export(module, (x,), tmp_path / "module.onnx", dynamo=True, verbose=False)
    operators = {node.op_type for node in onnx.load(tmp_path / "module.onnx").graph.node}
    assert operators - {"Reshape", "Constant"} == {"Mul", "Add"}
    session = onnxruntime.InferenceSession(tmp_path / "module.onnx")
    actual = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    weight, bias = module.weight.detach(), module.bias.detach()
    # a product and a sum on both sides
    limit = 2 * 3 * UNIT[torch.float32] * float(weight.abs().max() * x.abs().max() + bias.abs().max())
    assert np.abs(actual - module(x).detach().numpy()).max() <= limit
