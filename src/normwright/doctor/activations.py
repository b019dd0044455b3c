"""What the layers of a network take and give while it trains."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.doctor.spread import Spread


@dataclass(frozen=True)
class ActivationFacts:
    """One layer or activation function over the mini-batches, in the order of the forward pass.

    Args:
        layer: qualified name of the module, or "module: function" of a call that is none.
        kind: its class's or function's name ("ReLU", "relu").
        of_normaliser: it normalises.
        calls: how often it ran in the forward pass of each mini-batch; a recomputation does not count.
        inputs: of its first call in each mini-batch in which it ran; of normalisers alone, else ().
        outputs: the same of what it gives.
        flat: share of outputs in the flat part of a saturating function (sigmoid, tanh) in each of those
            mini-batches, where the derivative is below 5 % of its maximum; () for other layers.
        units: channels or units that were watched for activity, or 0 where there is none to watch for.
        spatial: a unit is a channel, which has a value at several positions of a sample.
        dead: of the units, those that were never active over all mini-batches: output 0, or in a flat part.
        seen: elements of each unit that this is judged by.
        is_output: what it gives is what the network gives.
    """

    layer: str
    kind: str
    of_normaliser: bool
    calls: tuple[int, ...]
    inputs: tuple[Spread, ...]
    outputs: tuple[Spread, ...]
    flat: tuple[float, ...] = ()
    units: int = 0
    spatial: bool = False
    dead: tuple[int, ...] = ()
    seen: int = 0
    is_output: bool = False
