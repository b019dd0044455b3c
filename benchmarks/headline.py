"""The rows by which the kernels are judged, with the figures they were given and are to reach.

Eager and compiled are of PyTorch 2.13, in copies, 2 threads, memory reused; all rows but the first are
forward and backward.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases import Case


@dataclass(frozen=True)
class Goal:
    """What one row was measured at before there were kernels, and what ours is to reach, in copies."""

    eager: float
    reach: float
    compiled: float | None = None


_IMAGE = (64, 64, 56, 56)
_ROWS = (8192, 1024)
_WIDTH = _ROWS[1:]

HEADLINE: dict[Case, Goal] = {
    Case("batch_norm", _IMAGE, mode="forward"): Goal(4.3, 1.3),
    Case("batch_norm", _IMAGE): Goal(9.4, 3.1),
    Case("batch_norm", _IMAGE, layout="channels-last"): Goal(6.0, 4.2),
    Case("batch_norm", _IMAGE, residual=True, activation="relu"): Goal(13.2, 4.4, 34.0),
    Case("batch_norm", _IMAGE, residual=True, activation="relu", layout="channels-last"): Goal(
        12.2, 5.4, 36.6
    ),
    Case("group_norm", _IMAGE, groups=32): Goal(3.9, 3.0),
    Case("group_norm", _IMAGE, groups=32, layout="channels-last"): Goal(7.9, 3.3),
    Case("instance_norm", _IMAGE): Goal(6.0, 3.0),
    Case("instance_norm", _IMAGE, layout="channels-last"): Goal(12.1, 3.3),
    Case("layer_norm", _IMAGE, normalized_shape=_IMAGE[1:], layout="channels-last"): Goal(13.9, 3.5),
    Case("layer_norm", _ROWS, normalized_shape=_WIDTH): Goal(3.8, 2.9, 6.3),
    Case("rms_norm", _ROWS, normalized_shape=_WIDTH): Goal(16.7, 2.9, 5.8),
    Case("batch_norm", _ROWS): Goal(5.2, 4.0, 8.5),
}
