"""The five normalisers by name: each is one row of the table, given to the one function.

The arguments have PyTorch's names and order. Each returns all of `Normalised`; its `y` is what the
function of the same name in `torch.nn.functional` returns, in training mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from normwright.reference.axes import axes_of
from normwright.reference.normalise import Normalised, normalise


def batch_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Normalised:
    """Normalises each channel by its moments over the mini-batch and space; x is (N, C, *space)."""
    return normalise(x, axes_of("batch", np.shape(x)), weight, bias, eps)


def layer_norm(
    x: npt.ArrayLike,
    normalized_shape: Sequence[int],
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Normalised:
    """Normalises the trailing axes that normalized_shape names; x is (..., *normalized_shape)."""
    return normalise(x, axes_of("layer", np.shape(x), normalized_shape=normalized_shape), weight, bias, eps)


def instance_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Normalised:
    """Normalises each channel of each sample by its moments over space; x is (N, C, *space)."""
    return normalise(x, axes_of("instance", np.shape(x)), weight, bias, eps)


def group_norm(
    x: npt.ArrayLike,
    num_groups: int,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Normalised:
    """Normalises each group of C/num_groups channels of each sample; x is (N, C, *space)."""
    return normalise(x, axes_of("group", np.shape(x), groups=num_groups), weight, bias, eps)


def rms_norm(
    x: npt.ArrayLike,
    normalized_shape: Sequence[int],
    weight: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Normalised:
    """Divides the trailing axes by their root mean square; x is (..., *normalized_shape)."""
    axes = axes_of("rms", np.shape(x), normalized_shape=normalized_shape)
    return normalise(x, axes, weight, eps=eps, center=False)
