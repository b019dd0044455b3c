"""LSTMs whose two paths and cell are normalised at each time step: by batch norm, or by layer norm.

With N the normaliser, and the gates in the order i, f, g, o, one step is

    z = N(W_hh·h)·gain_hh + N(W_ih·x)·gain_ih + bias,    i, f, o = σ(z_i, z_f, z_o),  g = tanh(z_g)
    c ← f·c + i·g,    h ← o·tanh(N(c)·gain_c + bias_c)

The cell that is carried on is not normalised, only what is shown of it: the sum f·c + i·g remembers as it
does in any LSTM. The two paths are normalised apart, since the gains between them are what is learned.

*Batch* norm takes its moments at each step by itself, over the sequences that have that step: at the start
the hidden state is 0 in all of them, and its spread grows over the first steps until it settles. Moments
shared over time would be wrong at either end. A sequence that has ended counts no longer: its h and c stay.

References:
    Cooijmans et al. 2017, "Recurrent batch normalization", equations 6 to 8, arXiv:1603.09025.
    Ba, Kiros & Hinton 2016, "Layer normalization", supplement, arXiv:1607.06450.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normwright.errors import ShapeError
from normwright.reference.activation import activate
from normwright.reference.arrays import Array, float64, ieee
from normwright.reference.axes import axes_of
from normwright.reference.moments import Moments, moments
from normwright.reference.normalise import normalise


class LSTMWeights(NamedTuple):
    """What an LSTM of H units learns.

    Args:
        weight_ih: (4H, I).
        weight_hh: (4H, H).
        bias: (4H,).
        gain_ih, gain_hh: (4H,).
        gain_c, bias_c: (H,).
    """

    weight_ih: Array
    weight_hh: Array
    bias: Array
    gain_ih: Array
    gain_hh: Array
    gain_c: Array
    bias_c: Array


class LSTMPass(NamedTuple):
    """What a pass over the sequences computes.

    Args:
        output: (T, N, H), h at each step; 0 where a sequence has ended.
        hidden, cell: (N, H), at each sequence's last step.
        moments: of each step, those of the input path, the hidden path and the cell; none with layer norm.
    """

    output: Array
    hidden: Array
    cell: Array
    moments: list[tuple[Moments, Moments, Moments]]


@ieee
def normalised_lstm(
    x: npt.ArrayLike,
    lengths: Sequence[int],
    weights: LSTMWeights,
    kind: str | None,
    eps: float = 1e-5,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
) -> LSTMPass:
    """Runs a normalised LSTM over sequences of unequal length.

    Args:
        x: (T, N, I); what lies past a sequence's length is not looked at.
        lengths: of the N sequences, from 1 to T.
        weights: of the layer.
        kind: "batch", "layer", or None for a plain LSTM, in which gains and the cell's bias play no part.
        eps: added to the variances.
        hidden, cell: (N, H), before the first step; None for 0.
    Returns:
        The outputs, the last states, and the moments that batch norm took.
    Raises:
        ShapeError: a length that is not from 1 to T.
    References:
        Cooijmans et al. 2017, arXiv:1603.09025.
    Example:
        >>> one = LSTMWeights(*[np.ones(shape) for shape in ((4, 1), (4, 1), 4, 4, 4, 1, 1)])
        >>> normalised_lstm([[[0.0], [2.0]]], [1, 1], one, "batch").output.shape
        (1, 2, 1)
    """
    x = np.asarray(x, dtype=np.float64)
    steps, count, _ = x.shape
    if len(lengths) != count or not all(1 <= length <= steps for length in lengths):
        raise ShapeError(f"lengths must be {count} numbers from 1 to {steps}, but are {list(lengths)}")
    units = weights.weight_hh.shape[1]
    h, c = (
        np.zeros((count, units)) if given is None else float64("state", given, (count, units)).copy()
        for given in (hidden, cell)
    )
    output = np.zeros((steps, count, units))
    taken: list[tuple[Moments, Moments, Moments]] = []
    for step in range(steps):
        on = np.array([length > step for length in lengths])
        paths = x[step, on] @ weights.weight_ih.T, h[on] @ weights.weight_hh.T
        gates = _normalised(paths[0], kind, weights.gain_ih, weights.bias, eps)
        gates = gates + _normalised(paths[1], kind, weights.gain_hh, np.zeros(4 * units), eps)
        i, f, g, o = np.split(gates, 4, axis=1)
        c[on] = activate(f, "sigmoid") * c[on] + activate(i, "sigmoid") * np.tanh(g)
        shown = c[on] if kind is None else _normalised(c[on], kind, weights.gain_c, weights.bias_c, eps)
        h[on] = activate(o, "sigmoid") * np.tanh(shown)
        output[step, on] = h[on]
        if kind == "batch":
            of_input, of_hidden, of_cell = (moments(z, axes_of("batch", z.shape)) for z in (*paths, c[on]))
            taken.append((of_input, of_hidden, of_cell))
    return LSTMPass(output, h, c, taken)


def _normalised(x: Array, kind: str | None, gain: Array, bias: Array, eps: float) -> Array:
    if kind is None:
        return x + bias
    return normalise(x, axes_of(kind, x.shape), gain, bias, eps).y
