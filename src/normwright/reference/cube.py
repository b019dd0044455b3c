"""The cube, cut up: which elements share a moment.

This is the table of axes once more, as a picture would show it: pick an element of the cube, and
colour every element that has the same mean and variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from normwright.errors import ShapeError
from normwright.reference.axes import Axes, axes_of


def moment_labels(axes: Axes) -> npt.NDArray[np.intp]:
    """Numbers the moments, and gives every element the number of its own.

    Args:
        axes: from `axes_of`.

    Returns:
        (*axes.shape), from 0 to the number of moments less 1; equal where a moment is shared.

    Example:
        >>> moment_labels(axes_of("batch", (2, 3))).tolist()
        [[0, 1, 2], [0, 1, 2]]
        >>> moment_labels(axes_of("layer", (2, 3))).tolist()
        [[0, 0, 0], [1, 1, 1]]
    """
    moments = math.prod(axes.moment_shape)
    labels = np.expand_dims(np.arange(moments).reshape(axes.moment_shape), axes.reduce)
    return np.broadcast_to(labels, axes.view).reshape(axes.shape)


def same_moment(
    kind: str, shape: Sequence[int], at: Sequence[int], *, groups: int | None = None
) -> npt.NDArray[np.bool_]:
    """Marks the elements that share the moment of one element: the coloured part of the cube.

    Args:
        kind: one of `KINDS`; layer and rms over all axes but the first.
        shape: (N, C, *space).
        at: the index of the element.
        groups: G, of group alone.

    Returns:
        (*shape), true where the moment is that of the element `at`.

    Raises:
        OptionError: as `axes_of`.
        ShapeError: as `axes_of`, or `at` is not an index into the shape.

    Example:
        >>> same_moment("group", (1, 4, 1), (0, 2, 0), groups=2).ravel().tolist()
        [False, False, True, True]
    """
    labels = moment_labels(axes_of(kind, shape, groups=groups))
    at = tuple(at)
    if len(at) != labels.ndim or any(not 0 <= i < size for i, size in zip(at, labels.shape, strict=False)):
        raise ShapeError(
            f"at must be an index into the shape {labels.shape}, but is {at}: "
            "give one number per axis, each from 0 to the size less 1"
        )
    marked: npt.NDArray[np.bool_] = labels == labels[at]
    return marked
