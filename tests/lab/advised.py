"""Small networks to be advised on, and all of them that must come back."""

from __future__ import annotations

import copy
import random

import numpy as np
import torch
from torch import nn


def blobs(count=64, features=8, classes=2, seed=0):
    """Points of a normal distribution, labelled by their first feature."""
    x = torch.randn(count, features, generator=torch.Generator().manual_seed(seed))
    ranks = x[:, 0].argsort().argsort()
    return x, ranks * classes // count


def small(features=8, classes=2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, classes)
    )


class Failing(nn.Module):
    """Fails in its own way on batches of `at` samples and more; `seen` holds what a failing call had made."""

    seen: list[object] = []  # noqa: RUF012  # a copy of the network must write to the same list

    def __init__(self, at, fail):
        super().__init__()
        self.norm, self.linear, self.at, self.fail = nn.BatchNorm1d(8), nn.Linear(8, 2), at, fail

    def forward(self, x):
        y = self.norm(x)
        if len(x) >= self.at:
            self.fail(y)
        return self.linear(y)


def trained(network, x, labels):
    """An optimiser with a state of its own, and gradients left in the network."""
    torch.manual_seed(1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        optimiser.step()
    return optimiser


def whole_state(network, optimiser=None):
    """Everything that must be as it was, as values to compare by `same`."""
    return copy.deepcopy(
        {
            "values": network.state_dict(),
            "identities": [id(value) for value in (*network.parameters(), *network.buffers())],
            "gradients": [parameter.grad for parameter in network.parameters()],
            "modes": [module.training for module in network.modules()],
            "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
            "optimiser": None if optimiser is None else optimiser.state_dict(),
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),
            "python": random.getstate(),
            "threads": torch.get_num_threads(),
        }
    )


def same(one, other):
    """Whether two states are equal, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
