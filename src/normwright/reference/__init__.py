"""Normalisation in NumPy float64: the mathematics, written to be read.

One idea carries the whole chapter. A normaliser takes *moments over some axes* of a tensor, and then
applies *an affine map shared over others*:

    x̂ = (x − mean) · rstd,   rstd = 1/√(variance + eps),   y = activation(x̂·weight + bias + residual)

What a normaliser is called says which axes it reduces, and nothing else. For x of (N, C, H, W):

    normaliser              reduces        elements per moment    weight and bias
    batch                   N, H, W        N·H·W                  C
    layer (over C, H, W)    C, H, W        C·H·W                  C·H·W
    instance                H, W           H·W                    C
    group                   C/G, H, W      (C/G)·H·W              C
    RMS                     as layer, the mean taken as 0         as layer

So there is one pair of functions, forward and backward, and a table of axes that it is given.
Read the files in this order:

    axes.py            the table: which axes a moment is taken over, which the weight is shared over
    cube.py            the same as a picture: which elements of a tensor share a moment
    moments.py         mean and variance, and why in two passes
    normalise.py       the forward map, its invariants, and the backward formula derived step by step
    normalisers.py     the five normalisers by name, one line each
    activation.py      the activations that may follow, and their derivatives
    epilogue.py        the whole map, with residual and activation, and its backward
    population.py      what to use instead of a mini-batch's moments at inference: three estimates
    renormalise.py     batch norm whose training is near to its inference
    whitening.py       decorrelating as well as standardising
    domains.py         batch norm over parts of a batch: virtual batches, domains
    without_batch.py   filter response norm, dynamic tanh, maxout
    weights.py         normalising a weight in place of what it computes
    masked.py          batch norm of padded sequences
    recurrent.py       LSTMs that are normalised at each time step
    local_response.py  the odd one out, which batch norm replaced

Everything here is plain and slow on purpose: every other implementation is tested against it.

Example:
    >>> import numpy as np
    >>> x = np.array([[1.0, 10.0], [3.0, 50.0]])  # two samples of two channels
    >>> normalise(x, axes_of("batch", x.shape), eps=0.0).y.tolist()  # down each channel
    [[-1.0, -1.0], [1.0, 1.0]]
    >>> normalise(x, axes_of("layer", x.shape), eps=0.0).y.tolist()  # along each sample
    [[-1.0, 1.0], [-1.0, 1.0]]
"""

from normwright.reference.activation import ACTIVATIONS, activate, activate_backward
from normwright.reference.axes import KINDS, TABLE, Axes, TableRow, axes_of
from normwright.reference.cube import moment_labels, same_moment
from normwright.reference.domains import split_batch_norm, split_batch_norm_backward, virtual_batches
from normwright.reference.epilogue import FusedGradients, fused, fused_backward
from normwright.reference.local_response import local_response_norm, local_response_norm_backward
from normwright.reference.masked import masked_batch_norm, masked_batch_norm_backward
from normwright.reference.moments import Moments, moments
from normwright.reference.normalise import Gradients, Normalised, normalise, normalise_backward
from normwright.reference.normalisers import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from normwright.reference.population import (
    InferenceMap,
    Population,
    inference_map,
    moving_average,
    total,
    within,
)
from normwright.reference.recurrent import LSTMPass, LSTMWeights, normalised_lstm
from normwright.reference.renormalise import Renormalised, batch_renorm, batch_renorm_backward
from normwright.reference.weights import standardise_weight, weight_norm
from normwright.reference.whitening import Whitened, whiten_by, whitening_norm, whitening_norm_backward
from normwright.reference.without_batch import dynamic_tanh, filter_response_norm, maxout

__all__ = [
    "ACTIVATIONS",
    "KINDS",
    "TABLE",
    "Axes",
    "FusedGradients",
    "Gradients",
    "InferenceMap",
    "LSTMPass",
    "LSTMWeights",
    "Moments",
    "Normalised",
    "Population",
    "Renormalised",
    "TableRow",
    "Whitened",
    "activate",
    "activate_backward",
    "axes_of",
    "batch_norm",
    "batch_renorm",
    "batch_renorm_backward",
    "dynamic_tanh",
    "filter_response_norm",
    "fused",
    "fused_backward",
    "group_norm",
    "inference_map",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "local_response_norm_backward",
    "masked_batch_norm",
    "masked_batch_norm_backward",
    "maxout",
    "moment_labels",
    "moments",
    "moving_average",
    "normalise",
    "normalise_backward",
    "normalised_lstm",
    "rms_norm",
    "same_moment",
    "split_batch_norm",
    "split_batch_norm_backward",
    "standardise_weight",
    "total",
    "virtual_batches",
    "weight_norm",
    "whiten_by",
    "whitening_norm",
    "whitening_norm_backward",
    "within",
]
