"""How steady the signal is that activations receive: over the layers, and over training."""

from __future__ import annotations

import numpy as np

from normwright.lab.run import Floats, RunResult


def spreads(result: RunResult) -> Floats:
    """The 85th less the 15th percentile of what each activation receives: (R, L), records by places.

    Where the normaliser stands before the activation, this is the normaliser's output.
    """
    percentiles = result.trace.output.astype(np.float64)
    spread: Floats = percentiles[..., 2] - percentiles[..., 0]
    return spread


def unevenness(result: RunResult) -> float:
    """The widest layer's spread over the narrowest's, at the first step; 1 where all are alike."""
    first = spreads(result)[0]
    return float(first.max() / first.min())


def drift(result: RunResult) -> Floats:
    """How far the percentiles of a layer moved since the first step, in spreads of its first step: (R,).

    mean over layers and percentiles of |p(t) − p(0)| / (p85(0) − p15(0))
    """
    percentiles = result.trace.output.astype(np.float64)
    moved = np.abs(percentiles - percentiles[0]) / spreads(result)[0][:, None]
    distance: Floats = moved.mean(axis=(1, 2))
    return distance
