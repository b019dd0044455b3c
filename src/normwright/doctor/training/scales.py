"""The weights of normalisers, before and after a few steps of training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from normwright.network.walk import find_normalisers

#: Magnitude of a weight below which its channel counts as collapsed. What a normaliser hands on has this
#: deviation, for what it scales has deviation 1.
COLLAPSED = 0.01


@dataclass(frozen=True)
class ScaleFacts:
    """The weight of one normaliser.

    Args:
        layer: qualified name.
        channels: how many entries the weight has.
        collapsed: of them, those below `COLLAPSED` in magnitude after training.
        largest_before, largest: the largest magnitude before and after.
        trained: it takes a gradient.
    """

    layer: str
    channels: int
    collapsed: int
    largest_before: float
    largest: float
    trained: bool


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Every normaliser's weight, by the normaliser's name."""
    weights = {name: getattr(module, "weight", None) for name, module in find_normalisers(network).items()}
    return {name: weight for name, weight in weights.items() if isinstance(weight, Tensor) and weight.numel()}


def scales_of(before: nn.Module, after: nn.Module) -> tuple[ScaleFacts, ...]:
    """The facts of every normaliser with a weight.

    Args:
        before: the network as it came.
        after: the twin of it that was trained.
    """
    came = weights_of(before)
    return tuple(
        ScaleFacts(
            name,
            weight.numel(),
            _collapsed(weight),
            _largest(came[name]),
            _largest(weight),
            weight.requires_grad,
        )
        for name, weight in weights_of(after).items()
    )


def _collapsed(weight: Tensor) -> int:
    return int((weight.detach().abs() < COLLAPSED).sum())


def _largest(weight: Tensor) -> float:
    return float(weight.detach().abs().max())
