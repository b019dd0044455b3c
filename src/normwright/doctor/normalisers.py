"""The settings of every normaliser of a network, as it came."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """A parameter's entries in short; computed in float64."""

    least: float
    mean: float
    greatest: float


@dataclass(frozen=True)
class NormaliserFacts:
    """One normaliser: a module, or a function's call in a forward.

    Args:
        name: qualified name of the module; of a function as in the graph, "module: function".
        functional: it is a function's call.
        kind: "batch", "synchronised", "frozen", "renormalised", "group", "instance", "layer", "rms",
            "local_response", or "" for a class whose formula is not known.
        what: the class's or function's name.
        features: channels, or elements of the normalised shape; None where not known.
        groups: of group norm, else None.
        elements: per moment in the example's call, the least of several calls; None where there was none, or
            the graph is missing.
        over_batch: its training moments run over the samples of the batch.
        eps: as it is set, or None.
        momentum: PyTorch's, the weight of the newest batch; None for a cumulative average, or none at all.
        affine: it has a weight.
        tracks: it keeps running statistics.
        training: the mode it came in.
        trained: its weight takes a gradient.
        frozen: it keeps its statistics whatever mode it is put in.
        weight, bias: in short, or None.
        calls: how often one forward called it; 0 where it was not called, or the graph is missing.
        where: file and line, or "".
    """

    name: str
    functional: bool
    kind: str
    what: str
    features: int | None
    groups: int | None
    elements: int | None
    over_batch: bool
    eps: float | None
    momentum: float | None
    affine: bool
    tracks: bool
    training: bool
    trained: bool
    frozen: bool
    weight: Summary | None
    bias: Summary | None
    calls: int
    where: str
