"""The modules' constructors and an input for each, as the drop-in tests take them."""

from __future__ import annotations

from types import SimpleNamespace

import torch

NORMALISERS = {
    "BatchNorm1d": ((6,), (4, 6, 5)),
    "BatchNorm2d": ((6,), (4, 6, 3, 5)),
    "BatchNorm3d": ((6,), (4, 6, 2, 3, 5)),
    "FrozenBatchNorm1d": ((6,), (4, 6, 5)),
    "FrozenBatchNorm2d": ((6,), (4, 6, 3, 5)),
    "FrozenBatchNorm3d": ((6,), (4, 6, 2, 3, 5)),
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
    "WhiteningNorm1d": ((6,), (4, 6, 5)),
    "WhiteningNorm2d": ((6,), (4, 6, 3, 5)),
    "WhiteningNorm3d": ((6,), (4, 6, 2, 3, 5)),
    "DynamicTanh": ((5,), (4, 6, 3, 5)),
    "FilterResponseNorm": ((6,), (4, 6, 3, 5)),
    "GhostBatchNorm1d": ((6,), (4, 6, 5)),
    "GhostBatchNorm2d": ((6,), (4, 6, 3, 5)),
    "GhostBatchNorm3d": ((6,), (4, 6, 2, 3, 5)),
    "Maxout": ((2,), (4, 6, 3, 5)),
    "SplitBatchNorm1d": ((6,), (4, 6, 5)),
    "SplitBatchNorm2d": ((6,), (4, 6, 3, 5)),
    "SplitBatchNorm3d": ((6,), (4, 6, 2, 3, 5)),
}

#: What takes sequences, their lengths or a mask.
OF_SEQUENCES = {"BatchNormLSTM", "LayerNormLSTM", "MaskedBatchNorm1d", "RecurrentBatchNorm"}

#: What acts on a module or on its weight, and takes no input of a network.
ON_MODULES = {
    "WeightNorm",
    "WeightStandardization",
    "domain",
    "init_weight_norm_",
    "weight_norm",
    "weight_standardization",
}


def _in_inference(kind: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """PyTorch has no frozen batch norm; this is its batch norm, held in inference."""

    class Held(kind):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.eval()

        def train(self, mode=True):
            return super().train(False)

    Held.__name__ = f"Frozen{kind.__name__}"
    return Held


# The module of PyTorch's that each of ours stands in for.
THEIRS = SimpleNamespace(
    **{
        name: getattr(torch.nn, name, None) or _in_inference(getattr(torch.nn, name.removeprefix("Frozen")))
        for name in NORMALISERS
    }
)


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
            else:
                tensor.fill_(3)  # a count of batches
    return module
