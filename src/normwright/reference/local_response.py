"""Local response normalisation: the odd one out.

    D_c = k + alpha/size · Σ x_j²  over the window of channel c,    y_c = x_c · D_c^(−beta)

The network that won ImageNet in 2012 had this; batch norm replaced it. It is not in the table of
axes. Its moment is taken over a *window* of neighbouring channels at one position, so that every
element has a moment of its own and windows overlap; no mean is taken away; nothing is learned; and
with the usual alpha the k = 1 outweighs the sum, so that it dampens large responses more than
it standardises.

The window is PyTorch's: channels c − ⌊size/2⌋ to c + ⌊(size−1)/2⌋, so one more below than above where
size is even. Channels beyond the ends count as 0, and the sum is divided by size there too.

Backward. x_i acts on y_i directly, and on every y_c in whose window it lies, through D_c:

    ∂y_c/∂x_i = [i=c]·D_c^(−beta) − beta·x_c·D_c^(−beta−1) · (2·alpha/size)·x_i   for i in the window of c

    dx_i = dy_i·D_i^(−beta) − (2·alpha·beta/size)·x_i · Σ dy_c·x_c·D_c^(−beta−1)   over c with i in window

The channels in whose window i lies, c from i − ⌊(size−1)/2⌋ to i + ⌊size/2⌋, are the window mirrored.

References:
    Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural
    networks", section 3.3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from normwright.errors import OptionError, ShapeError
from normwright.reference.arrays import Array, float64, ieee


@ieee
def local_response_norm(
    x: npt.ArrayLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """Divides each element by a power of the squares in a window of channels around it.

        y = x / (k + alpha/size · Σ x²)^beta

    Args:
        x: (N, C, *space).
        size: channels in the window.
        alpha: factor of the mean square, in the unit of 1/x².
        beta: exponent.
        k: what is added to the mean square.

    Returns:
        (N, C, *space).

    Raises:
        OptionError: size is below 1.
        ShapeError: x has no axis of channels.

    References:
        Krizhevsky et al. 2012, section 3.3.

    Example:
        >>> local_response_norm([[3.0, 4.0, 0.0]], size=2, alpha=2.0, beta=1.0, k=0.0).tolist()
        [[0.3333333333333333, 0.16, 0.0]]
    """
    x = _with_channels(x)
    return x * _denominator(x, size, alpha, k) ** -beta


@ieee
def local_response_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Array:
    """Carries the gradient at y = local_response_norm(x, ...) back to x.

    The derivation is at the head of this file.

    Args:
        dy: (N, C, *space), the gradient of the loss by y.
        x: (N, C, *space), as `local_response_norm` had it, and so are the others.
        size: channels in the window.
        alpha: factor of the mean square.
        beta: exponent.
        k: what is added to the mean square.

    Returns:
        (N, C, *space).

    Raises:
        OptionError: size is below 1.
        ShapeError: x has no axis of channels, or dy has another shape.
    """
    x = _with_channels(x)
    dy = float64("dy", dy, x.shape)
    denominator = _denominator(x, size, alpha, k)
    through_windows = _window_sum(
        dy * x * denominator ** (-beta - 1.0), below=(size - 1) // 2, above=size // 2
    )
    return dy * denominator**-beta - (2.0 * alpha * beta / size) * x * through_windows


def _with_channels(x: npt.ArrayLike) -> Array:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim < 2:
        raise ShapeError(f"x must be (N, C, *space), but has shape {x.shape}: add the axes that are missing")
    return x


def _denominator(x: Array, size: int, alpha: float, k: float) -> Array:
    """D of the formulas, before the exponent."""
    if size < 1:
        raise OptionError(f"size must be at least 1, but is {size}: 5 is usual")
    return k + alpha / size * _window_sum(x**2, below=size // 2, above=(size - 1) // 2)


def _window_sum(v: Array, below: int, above: int) -> Array:
    """Sums each channel c with those from c − below to c + above; channels beyond the ends are 0."""
    # A running sum would be faster, and would carry a NaN or a large value into every later channel.
    padded = np.pad(v, [(0, 0), (below, above), *((0, 0) for _ in v.shape[2:])])
    windows = np.lib.stride_tricks.sliding_window_view(padded, below + above + 1, axis=1)
    sums: Array = windows.sum(axis=-1)
    return sums
