"""A small trained-looking network with two batch norms, and batches for it."""

from __future__ import annotations

import torch
from torch import nn


def plain_network(eps=1e-5):
    """Convolutions with batch norm; statistics, weights and biases that are all other than 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=eps), nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2), nn.BatchNorm2d(8, eps=eps), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip
        for index in (1, 4):
            nn.init.uniform_(network[index].weight, 0.5, 1.5)
            nn.init.uniform_(network[index].bias, -0.5, 0.5)
        for _ in range(4):
            network(2 * torch.randn(16, 3, 10, 10) + 1)
    return network.eval()


def images(samples=4, seed=5):
    """Images like those that it has seen."""
    return 2 * torch.randn(samples, 3, 10, 10, generator=torch.Generator().manual_seed(seed)) + 1


def batches_for(network, count=3):
    """(images, the network's own answers) as a loader gives them."""
    del network
    return [(images(16, seed), torch.arange(16) % 3) for seed in range(count)]


def forward_of(network, batch):
    """The outputs for a batch."""
    return network(batch[0])


def known(network):
    """Everything but tensors that a conversion might disturb."""
    return [
        (type(module), module.training, {n: v for n, v in vars(module).items() if n[0] != "_"},
         [(n, p.requires_grad) for n, p in module.named_parameters(recurse=False)],
         len(module._forward_hooks), len(module._forward_pre_hooks))
        for module in network.modules()
    ]  # fmt: skip
