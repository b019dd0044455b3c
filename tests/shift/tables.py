"""Small sets of rows."""

from __future__ import annotations

import numpy as np

from normwright.shift.columns import Rows


def rows(name="reference", shape=(), left_out=(), **columns):
    kept = {key: np.asarray(values) for key, values in columns.items()}
    return Rows(name, kept, shape, left_out)


def normal(count, columns=3, *, seed, shift=0.0, name="reference"):
    """Normal values; the first column's mean is the shift."""
    values = np.random.default_rng(seed).normal(size=(columns, count))
    values[0] += shift
    return rows(name, **{f"c{place}": column for place, column in enumerate(values)})


def text(*values):
    return np.array(values, dtype=object)
