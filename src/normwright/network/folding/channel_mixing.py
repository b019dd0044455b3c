"""What is left of whitening that nothing took in: one grouped 1×1 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normwright.network.folding.block_affine import BlockAffine

_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


class ChannelMixing(nn.Module):
    """y = weight·x + bias within each group of channels, of (N, C) or (N, C, *space).

    State: weight (C, C/groups), the rows of the groups' matrices, and bias (C,). It exports as a convolution.

    Args:
        num_features: C.
        groups: of neighbouring channels; divides C.
        device: of weight and bias, which start as the identity's.
        dtype: of weight and bias.
    Example:
        >>> mixing = ChannelMixing(4, groups=2)
        >>> mixing(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist()
        [[1.0, 2.0, 3.0, 4.0]]
    """

    def __init__(
        self,
        num_features: int,
        *,
        groups: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features, self.groups = num_features, groups
        identity = torch.eye(num_features // groups, device=device, dtype=dtype)
        self.weight = nn.Parameter(identity.repeat(groups, 1))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))

    @classmethod
    def of(
        cls,
        affine: BlockAffine,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> ChannelMixing:
        """The module that computes a map, rounded once to dtype."""
        module = cls(affine.channels, groups=len(affine.matrix), device=device, dtype=dtype)
        with torch.no_grad():
            module.weight.copy_(affine.matrix.flatten(0, 1))
            module.bias.copy_(affine.shift)
        return module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Returns y of input's shape; of its dtype too, where weight and bias have another."""
        # A normaliser is often kept in float32 among layers of bfloat16; a convolution takes one dtype.
        dtype = torch.promote_types(input.dtype, self.weight.dtype)
        x, weight, bias = (tensor.to(dtype) for tensor in (input, self.weight, self.bias))
        x = x.unsqueeze(-1) if input.dim() == 2 else x
        weight = weight.view(*weight.shape, *[1] * (x.dim() - 2))
        y = _CONVOLUTIONS[x.dim()](x, weight, bias, groups=self.groups)
        y = y if dtype == input.dtype else y.to(input.dtype)
        return y.squeeze(-1) if input.dim() == 2 else y

    def extra_repr(self) -> str:
        """The number of channels, and of groups."""
        return f"{self.num_features}, groups={self.groups}"
