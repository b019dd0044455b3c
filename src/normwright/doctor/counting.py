"""How often each normaliser runs in a training step, and how often that moves its running statistics."""

from __future__ import annotations

from dataclasses import dataclass


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
        trained: weight or bias takes a gradient; None where it has neither.
        meant_frozen: why it seems meant to stand still, or "".
    """

    layer: str
    kind: str
    runs: float
    recomputed: float
    moves: float
    moves_recomputed: float
    trained: bool | None
    meant_frozen: str
