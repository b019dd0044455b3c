"""The parameters of a network, and what its optimiser does to each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from normwright.network.walk import is_normaliser


@dataclass(frozen=True)
class ParameterFacts:
    """One parameter.

    Args:
        name: qualified.
        layer: qualified name of the module that holds it.
        of_normaliser: it is a normaliser's weight or bias.
        shape: its sizes.
        trained: it takes a gradient.
        shared: several modules hold it.
        group: which of the optimiser's groups it is in, counted from 0, or None.
        lr, weight_decay: that group's, or None.
    """

    name: str
    layer: str
    of_normaliser: bool
    shape: tuple[int, ...]
    trained: bool
    shared: bool
    group: int | None
    lr: float | None
    weight_decay: float | None


def parameters_of(network: nn.Module, optimiser: Optimizer | None) -> tuple[ParameterFacts, ...]:
    """The facts of every parameter, in the network's order; a shared one counts once."""
    groups = {} if optimiser is None else _groups(optimiser)
    modules = dict(network.named_modules())
    holders = Counter(map(id, dict(network.named_parameters(remove_duplicate=False)).values()))
    found = []
    for name, parameter in network.named_parameters():
        layer = name.rpartition(".")[0]
        group, options = groups.get(id(parameter), (None, {}))
        found.append(
            ParameterFacts(
                name,
                layer,
                is_normaliser(modules[layer]),
                tuple(parameter.shape),
                parameter.requires_grad,
                holders[id(parameter)] > 1,
                group,
                _number(options.get("lr")),
                _number(options.get("weight_decay")),
            )
        )
    return tuple(found)


def _groups(optimiser: Optimizer) -> dict[int, tuple[int, dict[str, Any]]]:
    return {
        id(parameter): (place, group)
        for place, group in enumerate(optimiser.param_groups)
        for parameter in group["params"]
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
