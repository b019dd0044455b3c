"""Whitening in PyTorch's own operations, which its kernels' time is measured beside."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlainWhitening(nn.Module):
    """Covariance, eigenvalues and projection, all through autograd."""

    def __init__(self, channels: int, size: int = 16, eps: float = 1e-5) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns y of x's shape."""
        columns = x.transpose(0, 1).reshape(x.shape[1] // self.size, self.size, -1)
        centred = columns - columns.mean(-1, keepdim=True)
        covariance = centred @ centred.mT / columns.shape[-1] + self.eps * torch.eye(self.size)
        values, vectors = torch.linalg.eigh(covariance)
        projection = (vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT
        y = (projection @ centred).reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1).contiguous()
        shape = (-1, *[1] * (x.dim() - 2))
        mapped: Tensor = y * self.weight.view(shape) + self.bias.view(shape)
        return mapped
