"""Gradients, and what the optimiser makes of them, while a network trains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GradientFacts:
    """The gradient of one parameter at each step of the optimiser (of each `accumulation` mini-batches).

    Args:
        parameter: qualified name; a shared one counts once.
        layer: qualified name of the module that holds it.
        of_normaliser: it is a normaliser's weight or bias.
        elements: how many it has.
        steps: the mini-batch at which each was read, counted from 0; those where it had a gradient.
        norms: ‖g‖₂ at each of them.
        nonfinite: elements of g that are NaN or infinite; such a norm is NaN or infinite as well.
        weights: ‖w‖₂ before each.
        updates: ‖Δw‖₂ of the optimiser's step at each; () without an optimiser.
    """

    parameter: str
    layer: str
    of_normaliser: bool
    elements: int
    steps: tuple[int, ...]
    norms: tuple[float, ...]
    nonfinite: tuple[int, ...]
    weights: tuple[float, ...]
    updates: tuple[float, ...]

    @property
    def rms(self) -> tuple[float, ...]:
        """The root mean square of the gradient's elements at each step."""
        return tuple(norm / self.elements**0.5 for norm in self.norms)

    @property
    def ratios(self) -> tuple[float, ...]:
        """‖Δw‖/‖w‖ at each step; infinite where w was 0 and moved. () without an optimiser."""
        return tuple(
            update / weight if weight else (float("inf") if update else 0.0)
            for update, weight in zip(self.updates, self.weights, strict=False)
        )


@dataclass(frozen=True)
class LayerGradients:
    """The gradients of all parameters of one layer, in the order of the forward pass.

    Args:
        layer: qualified name.
        steps: as in `GradientFacts`.
        norms: ‖g‖₂ over its parameters at each step.
        rms: of their elements.
        ratios: ‖Δw‖/‖w‖ over its parameters; () without an optimiser.
    """

    layer: str
    steps: tuple[int, ...]
    norms: tuple[float, ...]
    rms: tuple[float, ...]
    ratios: tuple[float, ...]
