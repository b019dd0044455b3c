"""Local response normalisation as a function."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.activation import ACTIVATIONS
from normwright.errors import ShapeError
from normwright.functional.arguments import HALF_DTYPES, check_epilogue, check_float, whole
from normwright.functional.autocasting import is_autocast

# PyTorch's message has this gap in it.
_EXPECTED = "Expected 3D or higher dimensionality                         "


def local_response_norm(
    input: Tensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """Divides each element by a power of the energy of its neighbouring channels.

        y = activation(x/(k + alpha·(Σ x² over the window)/size)^beta + residual)

    The window is the `size` channels around the element's own, cut off at the first and last channel. The
    map is PyTorch's own; the residual and the activation are added here.

    Args:
        input: (N, C, *space) with at least one axis of space.
        size: channels in the window, at least 1.
        alpha: scales the energy; unit 1/input².
        beta: the exponent.
        k: added to the energy.
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
    Returns:
        input's shape and dtype; float32 under autocast, as in PyTorch.
    Raises:
        ShapeError: fewer than three axes, or a size below 1.
        OptionError: a size that is not whole.
        DtypeError: an alpha, beta or k that is no number.
    References:
        Krizhevsky, Sutskever & Hinton 2012, section 3.3.
    Example:
        >>> local_response_norm(torch.ones(1, 2, 1), 1, alpha=3.0, beta=1.0)
        tensor([[[0.2500],
                 [0.2500]]])
    """
    check_epilogue(input, residual, activation)
    for place, (name, value) in enumerate((("alpha", alpha), ("beta", beta), ("k", k)), 3):
        check_float("local_response_norm", name, place, value)
    size = whole("size", size)
    if input.dim() < 3:
        raise ShapeError(f"{_EXPECTED} input (got {input.dim()} dimensions)")
    if size < 1:
        window = f"kH: {size} kW: 1" if input.dim() == 3 else f"kT: {size} kH: 1 kW: 1"
        raise ShapeError(f"kernel size should be greater than zero, but got {window} (the window's channels)")
    # PyTorch's pooling takes no half types on the CPU, and its view of the last axes not every layout.
    half = input.dtype in HALF_DTYPES
    wide = input.float() if half else input
    flat = wide.flatten(3) if input.dim() > 4 else wide
    y = torch.nn.functional.local_response_norm(flat, size, alpha, beta, k).reshape(input.shape)
    if residual is not None:
        y = y + residual.to(y.dtype)
    if activation:
        y = ACTIVATIONS[activation].value(y)
    return y.to(input.dtype) if half and not is_autocast(input.device) else y
