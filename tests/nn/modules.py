"""The modules' constructors and an input for each, as the drop-in tests take them."""

from __future__ import annotations

import torch

NORMALISERS = {
    "BatchNorm1d": ((6,), (4, 6, 5)),
    "BatchNorm2d": ((6,), (4, 6, 3, 5)),
    "BatchNorm3d": ((6,), (4, 6, 2, 3, 5)),
    "InstanceNorm1d": ((6,), (4, 6, 5)),
    "InstanceNorm2d": ((6,), (4, 6, 3, 5)),
    "InstanceNorm3d": ((6,), (4, 6, 2, 3, 5)),
    "GroupNorm": ((2, 6), (4, 6, 3, 5)),
    "LayerNorm": (((3, 5),), (4, 6, 3, 5)),
    "RMSNorm": (((3, 5),), (4, 6, 3, 5)),
    "SyncBatchNorm": ((6,), (4, 6, 3, 5)),
    "LocalResponseNorm": ((3,), (4, 6, 3, 5)),
}

#: What PyTorch has not; their arguments and input.
OWN = {
    "BatchRenorm1d": ((6,), (4, 6, 5)),
    "BatchRenorm2d": ((6,), (4, 6, 3, 5)),
    "BatchRenorm3d": ((6,), (4, 6, 2, 3, 5)),
}


def input_of(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """An input of the shape that the module takes."""
    return torch.randn((NORMALISERS | OWN)[name][1], generator=torch.Generator().manual_seed(seed)).to(dtype)


def fill(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Gives every parameter and running statistic a value of its own."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
    return module
