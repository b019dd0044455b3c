"""The treatment of running statistics: estimates them anew from the subject's batches."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from normwright.doctor.subject import Subject
from normwright.network.frozen_class import is_frozen
from normwright.network.walk import find_normalisers
from normwright.statistics.recalibrate import recalibrate


def recalibrated(subject: Subject, layer: str) -> tuple[nn.Module, Optimizer | None]:
    """The subject's network, with the statistics of all that trains estimated anew, and its optimiser.

    Args:
        subject: a twin, which is changed.
        layer: is estimated whether it trains or not; "" for none.
    """
    network = subject.network
    if not network.training:
        network.train()
    modes = {module: module.training for module in network.modules()}
    names = {layer.partition(": ")[0]} - {""} | {
        name
        for name, module in find_normalisers(network).items()
        if module.training and not is_frozen(module) and getattr(module, "running_mean", None) is not None
    }
    # in inference mode dropout stands still, and what training moves towards is estimated
    recalibrate(
        network.eval(),
        subject.batches,
        estimator="within",
        forward_fn=subject.forward_fn,
        layers=sorted(names) or None,
        process_group=subject.process_group,
    )
    for module, training in modes.items():
        module.training = training
    return network, subject.optimiser
