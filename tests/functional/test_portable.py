"""Networks of ours as ONNX: PyTorch's own functions in the operators' place, which compute the same."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import normwright as nw
from normwright.backends.activation import ACTIVATIONS
from normwright.functional import portable

OPERATORS = torch.ops.normwright
EXACT = 1e-13  # both round in float64, in another order


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def check(operator, x, weight, bias, *settings):
    for activation in (None, *ACTIVATIONS):
        for residual in (None, draw(*x.shape, seed=3, dtype=x.dtype)):
            call = (x, residual, weight, bias, *settings, activation)
            same(portable.DECOMPOSITIONS[operator](*call), operator(*call))


def same(actual, expected):
    for one, other in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        assert one.dtype == other.dtype
        exact = EXACT if other.dtype == torch.float64 else 4 * torch.finfo(other.dtype).eps
        assert float((one - other).abs().max()) <= exact * float(other.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("center", [True, False])
def test_rows(center, dtype):
    wide = torch.float32 if dtype == torch.bfloat16 else dtype  # of the parameters
    weight, bias = draw(4, 5, seed=1, dtype=wide), draw(4, 5, seed=2, dtype=wide) if center else None
    for affine in ((weight, bias), (None, None)):
        for operator in (OPERATORS.rows_inference.default, OPERATORS.rows_forward.default):
            check(operator, draw(3, 4, 5, dtype=dtype), *affine, 2, center, 0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("center", [True, False])
def test_groups(center, dtype):
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    for affine in ((draw(6, seed=1, dtype=wide), draw(6, seed=2, dtype=wide)), (None, None)):
        for operator in (OPERATORS.groups_inference.default, OPERATORS.groups_forward.default):
            check(operator, draw(3, 6, 4, 2, dtype=dtype), *affine, 2, center, 0.1)


def test_affine():
    moments = draw(6, seed=4), draw(6, seed=5).square()
    for affine in ((draw(6, seed=1), draw(6, seed=2)), (None, None)):
        check(OPERATORS.channel_affine.default, draw(3, 6, 4, 2), *affine, *moments, 0.1)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.group, self.layer, self.rms = nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.RMSNorm(8)
        self.response, self.squash = nw.nn.FilterResponseNorm(8), nw.nn.DynamicTanh(8)

    def forward(self, x):
        y = self.response(self.group(self.stem(x)).relu()).mean((2, 3))
        return self.squash(self.rms(self.layer(y)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_program_exported_with_gradients_without_our_operators():
    network, x = nw.accelerate(Mixed().eval()), draw(2, 3, 6, 6, dtype=torch.float32)
    program = torch.export.export(network, (x,))
    plain = program.run_decompositions(dict(portable.DECOMPOSITIONS))
    assert "normwright" in str(program.graph)
    assert "normwright" not in str(plain.graph)
    torch.testing.assert_close(plain.module()(x), network(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_accelerated_network_as_onnx():
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network, x = nw.accelerate(Mixed().eval()), draw(2, 3, 6, 6, dtype=torch.float32)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.onnx.export(network, (x,), dynamo=True, verbose=False, dynamic_shapes=shapes)
    content = io.BytesIO()
    exported.save(content)
    session = runtime.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])
    for batch in (x, draw(5, 3, 6, 6, seed=1, dtype=torch.float32)):
        with torch.no_grad():
            expected = network(batch)
        (actual,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        # as rounded as the network itself is: the last norms take what is left of eight channels
        torch.testing.assert_close(torch.from_numpy(actual), expected)
