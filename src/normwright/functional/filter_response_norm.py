"""Filter response normalisation as a function."""

from __future__ import annotations

from torch import Tensor

from normwright.backends.activation import ACTIVATIONS
from normwright.errors import OptionError, ShapeError
from normwright.functional import operators
from normwright.functional.arguments import (
    check_epilogue,
    check_floating_point,
    check_parameter_dtypes,
    check_scalar,
    check_tensors,
    is_channel_vector,
    is_number,
)
from normwright.functional.filter_response_autograd import normalise_responses
from normwright.functional.sharded import check_not_sharded


def filter_response_norm(
    input: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    threshold: Tensor | None = None,
    eps: float | Tensor = 1e-6,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """Divides each channel of each sample by its root mean square over space; then a thresholded linear unit.

        y = activation(max(x/√(mean(x²) + eps)·weight + bias, threshold) + residual)

    No mean is taken away, and nothing depends on the rest of the batch or on the other channels.

    Args:
        input: (N, C, *space), floating point, any memory format.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        threshold: (C,), τ of the thresholded linear unit (TLU) max(y, τ); None leaves the unit out. Where y
            equals τ, the gradient goes to τ.
        eps: added to the mean square; same unit as input². A number, or a scalar tensor that may be learned.
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: no space, or a single position, over which a mean square says nothing; a vector that is
            not (C,); or an eps that is no scalar.
        OptionError: eps not above 0, or an unknown activation.
        DtypeError: an input or a learned eps that is not floating point, or parameters of another dtype.
    References:
        Singh & Krishnan 2020, arXiv:1911.09737.
    Example:
        >>> filter_response_norm(torch.tensor([[[3.0, 4.0, 5.0]]]), threshold=torch.ones(1), eps=1e-12)
        tensor([[[1.0000, 1.0000, 1.2247]]])
    """
    check_floating_point("filter_response_norm", input)
    check_tensors("filter_response_norm", input, 2, weight=weight, bias=bias, threshold=threshold)
    check_epilogue(input, residual, activation)
    _check(input, eps, weight=weight, bias=bias, threshold=threshold)
    eps = eps.reshape(()) if isinstance(eps, Tensor) else eps
    check_parameter_dtypes(input, weight, bias, threshold)
    if threshold is None and not isinstance(eps, Tensor):
        groups = input.shape[1]
        return operators.groups(input, residual, weight, bias, groups, eps, activation, center=False)
    check_not_sharded("filter response norm with a threshold or a learned eps", input)
    if not input.numel():
        y = input + 0 * sum(vector.sum() for vector in (weight, bias, threshold) if vector is not None)
    else:
        y = normalise_responses(input, weight, bias, threshold, eps)
    if residual is not None:
        y = y + residual.to(y.dtype)
    return ACTIVATIONS[activation].value(y) if activation else y


def _check(x: Tensor, eps: float | Tensor, **vectors: Tensor | None) -> None:
    if x.dim() < 3 or x.shape[2:].numel() == 1:
        raise ShapeError(
            f"filter response norm takes (N, C, *space) with more than one position, but got "
            f"{list(x.shape)}: a single one is divided by its own size, √(x² + eps), and all but its sign is "
            "lost where x² is far above eps. Use layer or batch norm there"
        )
    for name, vector in vectors.items():
        if not is_channel_vector(vector, x.shape[1]):
            assert vector is not None
            raise ShapeError(
                f"{name} must be ({x.shape[1]},), one per channel, but has shape {list(vector.shape)}"
            )
    if isinstance(eps, Tensor):
        check_scalar("eps", eps)
    elif not is_number(eps) or not eps > 0:
        raise OptionError(f"eps must be above 0, so that a channel of zeros has an output, but is {eps!r}")
