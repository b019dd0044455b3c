"""What comes out of a normaliser can be changed in place, as `ReLU(inplace=True)` after it does."""

import pytest
import torch

from normwright import nn

MODULES = {
    "BatchNorm2d": (4,),
    "FrozenBatchNorm2d": (4,),
    "GroupNorm": (2, 4),
    "InstanceNorm2d": (4,),
    "LayerNorm": ((4, 5, 6),),
    "RMSNorm": ((6,),),
    "LocalResponseNorm": (3,),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_in_place_relu(name, training, memory_format, dtype):
    module = getattr(nn, name)(*MODULES[name]).to(dtype).train(training)
    x = torch.linspace(-2, 2, 3 * 4 * 5 * 6, dtype=dtype).view(3, 4, 5, 6).sin()
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    expected = torch.autograd.grad(torch.relu(module(x)).square().sum(), x)[0]
    y = module(x)
    torch.relu_(y)
    assert torch.equal(torch.autograd.grad(y.square().sum(), x)[0], expected)
