"""How often each normaliser runs in a training step, and how often that moves its running statistics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from normwright.doctor.statistics.sight import Sight
from normwright.doctor.subject import Subject


@dataclass(frozen=True)
class CountFacts:
    """One normaliser that keeps running statistics, over the trial's mini-batches.

    Args:
        layer: qualified name.
        kind: its class's name.
        runs: forwards for each mini-batch.
        recomputed: forwards inside a backward for each mini-batch, as activation checkpointing makes them.
        moves: times that its running statistics moved for each mini-batch.
        moves_recomputed: those of them inside a backward.
        meant_frozen: why it seems meant to stand still, or "".
    """

    layer: str
    kind: str
    runs: float
    recomputed: float
    moves: float
    moves_recomputed: float
    meant_frozen: str


class Counts:
    """Counts what a trial shows."""

    def __init__(self) -> None:
        self._first: dict[str, Sight] = {}
        self._counted: dict[str, Counter[str]] = {}
        self._before: dict[str, list[tuple[Tensor, ...]]] = {}

    def before(self, sight: Sight, step: int) -> None:
        """A call begins."""
        if sight.tracks:
            name = sight.layer
            self._first.setdefault(name, sight.without_elements())
            count = self._counted.setdefault(name, Counter())
            count["recomputed" if sight.recomputed else "runs"] += 1
            self._before.setdefault(name, []).append(tuple(buffer.clone() for buffer in _buffers(sight)))

    def after(self, sight: Sight) -> None:
        """It is over."""
        if sight.tracks:
            before = self._before[sight.layer].pop()
            if any(bool((old != new).any()) for old, new in zip(before, _buffers(sight), strict=True)):
                self._counted[sight.layer]["moves_recomputed" if sight.recomputed else "moves"] += 1

    def facts(self, subject: Subject) -> tuple[CountFacts, ...]:
        """All of it, for each mini-batch of a trial of the subject."""
        batches = len(subject.batches)
        meant = meant_frozen(subject.network)
        return tuple(
            CountFacts(
                name,
                sight.kind,
                self._counted[name]["runs"] / batches,
                self._counted[name]["recomputed"] / batches,
                (self._counted[name]["moves"] + self._counted[name]["moves_recomputed"]) / batches,
                self._counted[name]["moves_recomputed"] / batches,
                meant.get(name.partition(": ")[0], ""),
            )
            for name, sight in self._first.items()
        )


def meant_frozen(network: nn.Module) -> dict[str, str]:
    """By name, normalisers that seem meant to stand still, and why."""
    found = {}
    trains = any(parameter.requires_grad for parameter in network.parameters())
    modules = dict(network.named_modules())
    for name, module in modules.items():
        if not isinstance(module, _NormBase):
            continue
        own = list(module.parameters(recurse=False))
        around = list(modules[name.rpartition(".")[0]].parameters())
        if any("Frozen" in kind.__name__ for kind in type(module).__mro__):
            found[name] = f"its class is called {type(module).__name__}"
        elif own and not any(parameter.requires_grad for parameter in own):
            found[name] = "its weight and bias take no gradient"
        elif not own and trains and around and not any(parameter.requires_grad for parameter in around):
            found[name] = "what stands around it takes no gradient"
    return found


def _buffers(sight: Sight) -> tuple[Any, ...]:
    # as `data`: a look must not count as a use of what a backward has saved
    return tuple(buffer.data for buffer in (sight.running_mean, sight.running_var) if buffer is not None)
