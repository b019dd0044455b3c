"""Faults of running statistics and of the normalisers' settings."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn

from benchmarks.faults.feeding import pixels
from benchmarks.faults.patients import Patient, lenet, loader_of, samples, transformers_resnet
from benchmarks.faults.seeded import Seeded

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def _normalisers(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BATCH_NORM)]


def buffers_left_out(patient: Patient) -> Patient:
    """A checkpoint of `named_parameters()`, loaded with `strict=False`: it has no running statistics."""
    saved = dict(patient.network.named_parameters())
    network = lenet().network
    network.load_state_dict(saved, strict=False)
    return patient.but(network=network)


def momentum_of_keras(patient: Patient) -> Patient:
    """`momentum=0.99` copied from Keras, where it is the share that stays."""
    for module in _normalisers(patient.network):
        module.momentum = 0.99
    return patient.but()


def momentum_zero(patient: Patient) -> Patient:
    """`momentum=0`, by which running statistics stay at mean 0 and variance 1 for ever."""
    for module in _normalisers(patient.network):
        module.momentum = 0.0
    return patient.but()


def eps_of_half_precision(patient: Patient) -> Patient:
    """`eps` raised to 10 "because of half precision"."""
    for module in _normalisers(patient.network):
        module.eps = 10.0
    return patient.but()


def scaled_twice(patient: Patient) -> Patient:
    """Pixels divided by 255 after `ToTensor` had done so."""
    x, y = pixels("fashion-mnist")
    return patient.but(loader=loader_of(x / 255 / 255, y))


def averaged_without_statistics(patient: Patient) -> Patient:
    """Stochastic weight averaging over the last steps, without `update_bn` at its end."""
    averaged = torch.optim.swa_utils.AveragedModel(patient.network)
    for _ in range(8):
        patient.train(4)
        averaged.update_parameters(patient.network)
    return patient.but(network=averaged.module, options={**patient.options, "averaged": True})


def moving_average_of_weights(patient: Patient) -> Patient:
    """An exponential moving average of the parameters, kept from the start, whose buffers nobody copies."""
    patient = transformers_resnet()
    average = copy.deepcopy(patient.network)
    for _ in range(24):
        patient.train(2)
        with torch.no_grad():
            for kept, new in zip(average.parameters(), patient.network.parameters(), strict=True):
                kept.lerp_(new, 0.2)
    return patient.but(network=average, options={**patient.options, "averaged": True})


def seeded_by_rank(patient: Patient) -> Patient:
    """Every process draws its own initial weights, and nobody sends rank 0's to the rest."""
    torch.manual_seed(torch.distributed.get_rank())
    for module in patient.network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    return patient.but(options={"process_group": torch.distributed.group.WORLD})


def statistics_of_their_own(patient: Patient) -> Patient:
    """Each process reads its own half of images sorted by class, and running statistics are never sent."""
    x, y = samples("digits")
    shard = y.argsort(stable=True).chunk(2)[torch.distributed.get_rank()]
    network = nn.parallel.DistributedDataParallel(patient.network, broadcast_buffers=False)
    options = {"process_group": torch.distributed.group.WORLD}
    return patient.but(
        network=cast(nn.Module, network), loader=loader_of(x[shard], y[shard]), options=options
    )


_GAP = {
    "train_eval_gap": "inference normalises by them",
    "stale_statistics": "they are not those of the data",
}

FAULTS = (
    Seeded(
        "buffers left out",
        "stale_statistics",
        "lenet",
        "a checkpoint of the parameters alone, loaded with strict=False",
        buffers_left_out,
        where=("norm",),
        states=("trained",),
        after_training=True,
        explains=_GAP,
    ),
    Seeded(
        "momentum of Keras",
        "momentum_extreme",
        "resnet20",
        "momentum=0.99, which in Keras means 0.01",
        momentum_of_keras,
        where=("norm",),
        explains=_GAP,
    ),
    Seeded(
        "momentum zero",
        "momentum_extreme",
        "lenet",
        "momentum=0: statistics never move",
        momentum_zero,
        where=("norm",),
        explains=_GAP,
    ),
    Seeded(
        "a huge eps",
        "eps_dominates",
        "Transformers ResNet",
        "eps=10, to be safe in half precision",
        eps_of_half_precision,
        where=("normalization",),
        explains={
            "vanishing_gradient": "what is divided by √10 in every layer fades",
            "gradient_imbalance": "the same",
            "internal_covariate_shift": "what is not normalised is not held steady",
            "dead_channels": "nor kept where a ReLU lets something through",
        },
    ),
    Seeded(
        "scaled twice",
        "eps_dominates",
        "lenet",
        "pixels divided by 255 twice over",
        scaled_twice,
        where=("conv1.norm",),
        explains={
            "unnormalised_input": "a deviation of 1/700",
            "vanishing_gradient": "the first layer's input is all but 0",
            "gradient_imbalance": "the same",
        },
    ),
    Seeded(
        "averaged without statistics",
        "averaged_weights_stale",
        "resnet20",
        "stochastic weight averaging without update_bn",
        averaged_without_statistics,
        states=("trained",),
        after_training=True,
        explains=_GAP,
    ),
    Seeded(
        "moving average of weights",
        "averaged_weights_stale",
        "Transformers ResNet",
        "a moving average of the parameters, whose running statistics are those of the start",
        moving_average_of_weights,
        states=("trained",),
        after_training=True,
        explains=_GAP,
    ),
    Seeded(
        "seeded by rank",
        "ranks_disagree",
        "resnet20",
        "every process draws its own initial weights",
        seeded_by_rank,
        states=("fresh",),
        ranks=True,
    ),
    Seeded(
        "statistics of their own",
        "ranks_disagree",
        "resnet20",
        "broadcast_buffers=False, each process with its own classes",
        statistics_of_their_own,
        states=("trained",),
        ranks=True,
        explains=_GAP,
    ),
)
