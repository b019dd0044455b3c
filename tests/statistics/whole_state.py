"""Small networks, and all of a network that must come back."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state_of(network):
    """Everything that must come back: values, modes, momenta, hooks."""
    return (
        {name: value.clone() for name, value in network.state_dict().items()},
        [module.training for module in network.modules()],
        [getattr(module, "momentum", None) for module in network.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
    )


def same_state(one, other, *, but=()):
    values = one[0].keys() == other[0].keys() and all(
        torch.equal(value.nan_to_num(77.0), other[0][name].nan_to_num(77.0))
        for name, value in one[0].items()
        if not name.endswith(but or "-")
    )
    return values and one[1:] == other[1:]


STATISTICS = ("running_mean", "running_var")


def small_network(norm=nn.BatchNorm2d):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), norm(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), norm(6), nn.ReLU()
    )


class FrozenBatchNorm2d(nn.Module):
    """As detectron2's: no batch norm by its class, and it calls batch_norm."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, training=False)
