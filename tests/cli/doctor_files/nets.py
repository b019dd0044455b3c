"""Networks, losses and optimisers of someone who calls `normwright doctor`."""

import torch
from torch import nn


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def wrong():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(9, 10))


def resnet():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        num_channels=1,
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type="basic",
        num_labels=10,
    )
    return ResNetForImageClassification(config)


def sgd(network):
    return torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=1e-3)


def no_optimiser(network):
    return 3


def loss(outputs, target):
    return nn.functional.cross_entropy(outputs, target) * 2


def each(outputs, target):
    return nn.functional.cross_entropy(outputs, target, reduction="none")


def broken_loss(outputs, target):
    raise LookupError("no [bold]such[/bold] loss")


def forward(network, batch):
    print("a line that the user's code prints")  # noqa: T201 - as users' code does
    return network(batch[0])
