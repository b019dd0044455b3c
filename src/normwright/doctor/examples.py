"""Networks and batches that several rules have their examples from."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sigmoid_network(depth: int, *, normalised: bool) -> nn.Sequential:
    """(N, 16) -> (N, 2), through `depth` sigmoid layers with batch norm or without."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(16, 16), nn.BatchNorm1d(16) if normalised else nn.Identity(), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(16, 2))


def two_classes() -> tuple[Tensor, Tensor]:
    """32 normal samples (32, 16), and labels (32,) that are 0 or 1."""
    return torch.randn(32, 16), torch.randint(2, (32,))
