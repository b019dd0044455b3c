"""From runs to what the report draws: bands over seeds, ribbons and gradient profiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from normwright.lab.judge import Choice, Results
from normwright.lab.records import Band, GradientProfile, Learning, Ribbon
from normwright.lab.run import Floats, Ints

# A loss curve is averaged down to this many points: a report of dozens of curves stays light.
POINTS = 200


def make_learning(choice: Choice, results: Results) -> Learning:
    """The learning curves of a choice: mean over seeds, lowest and highest seed."""
    runs = [results[run.hash] for run in choice.runs]
    # One stretch for all, for the means of others would be at no step in common.
    stretch = max(1, -(-max(len(run.loss) for run in runs) // POINTS))
    loss = _band([_thinned(run.loss, stretch) for run in runs])
    metric = _band([(run.evaluation_steps, run.validation) for run in runs])
    return Learning(choice.norm, choice.batch_size, loss, metric)


def make_ribbons(choice: Choice, results: Results) -> list[Ribbon]:
    """The percentile ribbons of a choice's first seed, one per place."""
    trace = results[choice.runs[0].hash].trace
    return [
        Ribbon(
            norm=choice.norm,
            batch_size=choice.batch_size,
            layer=layer,
            steps=_ints(trace.steps),
            input=_triples(trace.input[:, place]),
            output=_triples(trace.output[:, place]),
        )
        for place, layer in enumerate(trace.places)
        if len(trace.steps)
    ]


def make_gradients(choice: Choice, results: Results) -> list[GradientProfile]:
    """The gradient profile of a choice's first seed, if anything was recorded."""
    trace = results[choice.runs[0].hash].trace
    if not len(trace.steps):
        return []
    profile = GradientProfile(
        norm=choice.norm,
        batch_size=choice.batch_size,
        layers=trace.layers,
        steps=_ints(trace.steps),
        gradient=tuple(map(_floats, trace.gradient)),
        update=tuple(map(_floats, trace.update)),
    )
    return [profile]


def _thinned(values: Floats, stretch: int) -> tuple[Ints, Floats]:
    """Means over stretches of so many steps, each at its last step."""
    starts = np.arange(0, len(values), stretch)
    if not len(starts):
        return starts, values
    ends = np.minimum(starts + stretch, len(values))
    # A run that diverges overflows on its way.
    with np.errstate(all="ignore"):
        means = np.add.reduceat(values.astype(np.float64), starts) / (ends - starts)
    return ends, means


def _band(curves: Sequence[tuple[Ints, Floats]]) -> Band:
    """Over the steps that any seed reached; a seed that diverged counts while it lasted."""
    longest = max((steps for steps, _ in curves), key=len)
    mean, low, high = [], [], []
    kept = []
    for i, step in enumerate(longest):
        values = [v[i] for s, v in curves if i < len(s) and s[i] == step and np.isfinite(v[i])]
        if values:
            kept.append(step)
            mean.append(np.mean(values))
            low.append(min(values))
            high.append(max(values))
    return Band(_ints(np.asarray(kept)), _floats(mean), _floats(low), _floats(high))


def _ints(values: Ints) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _floats(values: Sequence[float] | Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _triples(values: Floats) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(low), float(middle), float(high)) for low, middle, high in values)
